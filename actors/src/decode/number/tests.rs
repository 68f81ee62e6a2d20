use arrow::datatypes::DecimalType;
use proptest::prelude::*;

use super::*;

#[test]
fn decimals_are_rounded_half_to_even_from_their_digits() {
    for (text, expected) in [
        ("14.2", 1420),
        ("20.0", 2000),
        ("0.07", 7),
        ("-3", -300),
        ("2.675", 268),
        ("2.665", 266),
        ("2.6650000000000000000000000000000000000000000001", 267),
        ("1e3", 100_000),
        ("1.5E-1", 15),
        ("-0.005", 0),
        ("-0.015", -2),
        ("1E-400", 0),
        ("0e999", 0),
        ("99999999.99", 9_999_999_999),
    ] {
        assert_eq!(decimal(text.as_bytes(), 10, 2), Ok(expected), "{text}");
    }
    assert_eq!(decimal(b"99999999.995", 10, 2), Err(NumberFault::Range));
    assert_eq!(decimal(b"1e30", 10, 2), Err(NumberFault::Range));
    assert_eq!(
        decimal(b"12345678901234567890123456789.123456789", 38, 9),
        Ok(12_345_678_901_234_567_890_123_456_789_123_456_789)
    );
    for wrong in ["", "-", ".", "1.2.3", "NaN", "1e", "0x1", "1 "] {
        assert_eq!(decimal(wrong.as_bytes(), 10, 2), Err(NumberFault::Syntax), "{wrong}");
    }
}

#[test]
fn integers_take_whole_numbers_only() {
    assert_eq!(integer(b"9223372036854775807"), Ok(i64::MAX));
    assert_eq!(integer(b"-9223372036854775808"), Ok(i64::MIN));
    assert_eq!(integer(b"9223372036854775808"), Err(NumberFault::Range));
    assert_eq!(integer(b"12.00"), Ok(12));
    assert_eq!(integer(b"1.2e1"), Ok(12));
    assert_eq!(integer(b"12.5"), Err(NumberFault::Fraction));
    assert_eq!(integer(b"1e-40"), Err(NumberFault::Fraction));
    assert_eq!(integer(b"twelve"), Err(NumberFault::Syntax));
}

#[test]
fn floats_know_the_names_of_what_is_no_number() {
    assert!(float(b"NaN").unwrap().is_nan());
    assert_eq!(float(b"-Infinity"), Ok(f64::NEG_INFINITY));
    assert_eq!(float(b"-3.4E38"), Ok(-3.4e38));
    assert_eq!(float(b"1e999"), Err(NumberFault::Range));
    assert_eq!(float(b"n/a"), Err(NumberFault::Syntax));
}

proptest! {
    #[test]
    fn short_floats_equal_the_standard_library(integers in 0_u64..1_000_000, places in 0_u32..1_000_000_000) {
        let text = format!("{integers}.{places}");
        prop_assert_eq!(float(text.as_bytes()).unwrap().to_bits(), text.parse::<f64>().unwrap().to_bits());
    }

    #[test]
    fn every_integer_survives(value: i64) {
        prop_assert_eq!(integer(value.to_string().as_bytes()), Ok(value));
    }

    #[test]
    fn every_decimal_survives(unscaled in -(10_i128.pow(38) - 1)..10_i128.pow(38), scale in 0_i8..38) {
        let text = arrow::datatypes::Decimal128Type::format_decimal(unscaled, 38, scale);
        prop_assert_eq!(decimal(text.as_bytes(), 38, scale), Ok(unscaled));
    }
}
