//! The `schema` part of a message: it says each field's exact form, so it wins over what the source's options say.

use std::collections::HashMap;

use crate::decode::column::Column;
use crate::decode::reading::{DecimalText, Reading};
use crate::decode::time::Unit;

/// Readings as the last schema made them. Every message carries the same schema until the table changes, so it is compared byte by
/// byte and taken apart only when it differs.
#[derive(Debug)]
pub(super) struct SchemaCache {
    raw: String,
    /// The readings that the options make.
    plain: Vec<Reading>,
}

#[derive(serde::Deserialize)]
struct Part {
    #[serde(default)]
    field: Option<String>,
    #[serde(default)]
    name: Option<String>,
    #[serde(rename = "type")]
    form: String,
    #[serde(default)]
    fields: Vec<Part>,
    #[serde(default)]
    parameters: HashMap<String, String>,
}

impl SchemaCache {
    pub(super) fn new(plain: &[Reading]) -> Self {
        SchemaCache { raw: String::new(), plain: plain.to_vec() }
    }

    /// Makes `readings` fit this schema. A schema that cannot be understood leaves what the options say.
    pub(super) fn apply(&mut self, schema: &str, columns: &[Column], readings: &mut [Reading]) {
        if self.raw == schema {
            return;
        }
        self.raw.clear();
        self.raw.push_str(schema);
        readings.clone_from_slice(&self.plain);
        let Ok(message) = sonic_rs::from_str::<Part>(schema) else { return };
        let row = message.fields.iter().find(|part| part.field.as_deref() == Some("after"));
        for part in row.map_or(&[][..], |row| row.fields.as_slice()) {
            let named = |exact: bool| {
                columns.iter().position(|column| match &part.field {
                    Some(name) if exact => column.field.name() == name,
                    Some(name) => column.field.name().to_lowercase() == name.to_lowercase(),
                    None => false,
                })
            };
            if let Some(reading) = named(true).or_else(|| named(false)).and_then(|place| readings.get_mut(place)) {
                refine(reading, part);
            }
        }
    }
}

fn refine(reading: &mut Reading, part: &Part) {
    let times = |unit: Option<Unit>, local: bool, reading: &mut Reading| {
        reading.unit = unit;
        reading.local_numbers = local;
    };
    match part.name.as_deref() {
        Some("io.debezium.time.Timestamp" | "org.apache.kafka.connect.data.Timestamp") => {
            times(Some(Unit::Milliseconds), true, reading)
        }
        Some("io.debezium.time.MicroTimestamp") => times(Some(Unit::Microseconds), true, reading),
        Some("io.debezium.time.NanoTimestamp") => times(Some(Unit::Nanoseconds), true, reading),
        Some("io.debezium.time.Time" | "org.apache.kafka.connect.data.Time") => times(Some(Unit::Milliseconds), true, reading),
        Some("io.debezium.time.MicroTime") => times(Some(Unit::Microseconds), true, reading),
        Some("io.debezium.time.NanoTime") => times(Some(Unit::Nanoseconds), true, reading),
        Some("org.apache.kafka.connect.data.Decimal") => {
            let scale = part.parameters.get("scale").and_then(|scale| scale.parse().ok());
            reading.decimal_text = DecimalText::Unscaled(scale.unwrap_or(reading.scale));
        }
        None if part.form == "string" => reading.decimal_text = DecimalText::Digits,
        _ => {}
    }
}
