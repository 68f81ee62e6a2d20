//! The clock functions. In a maintained plan `now()` is the engine's moving clock and must survive planning to become a temporal
//! filter; in an answered query it is the answer's timestamp.

use std::any::Any;
use std::sync::Arc;

use arrow::datatypes::DataType;
use datafusion::common::ScalarValue;
use datafusion::error::{DataFusionError, Result};
use datafusion::logical_expr::simplify::{ExprSimplifyResult, SimplifyContext};
use datafusion::logical_expr::{ColumnarValue, Expr, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility};

use crate::types::timestamptz;

const MICROSECONDS_PER_DAY: i64 = 86_400_000_000;

/// Our versions of the functions that read the clock; `as_of` is the answer's timestamp, absent in maintained plans.
pub(crate) fn lake_functions(as_of: Option<u64>) -> Vec<Arc<ScalarUDF>> {
    let now = Clock::new("now", &["current_timestamp", "transaction_timestamp", "statement_timestamp"], timestamptz(), as_of);
    let today = Clock::new("current_date", &["today"], DataType::Date32, as_of);
    vec![Arc::new(ScalarUDF::from(now)), Arc::new(ScalarUDF::from(today))]
}

/// Whether a function reads the clock, and in what unit: microseconds or days.
pub(crate) fn is_clock(function: &ScalarUDF) -> bool {
    function.inner().as_any().is::<Clock>()
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Clock {
    name: &'static str,
    aliases: Vec<String>,
    signature: Signature,
    data_type: DataType,
    as_of: Option<u64>,
}

impl Clock {
    fn new(name: &'static str, aliases: &[&str], data_type: DataType, as_of: Option<u64>) -> Clock {
        // Volatile keeps the optimiser from evaluating it while planning.
        let volatility = if as_of.is_some() { Volatility::Stable } else { Volatility::Volatile };
        let aliases = aliases.iter().map(|alias| (*alias).to_string()).collect();
        Clock { name, aliases, signature: Signature::nullary(volatility), data_type, as_of }
    }

    fn value(&self) -> Option<ScalarValue> {
        let as_of = i64::try_from(self.as_of?).unwrap_or(i64::MAX);
        Some(match self.data_type {
            DataType::Date32 => ScalarValue::Date32(i32::try_from(as_of.div_euclid(MICROSECONDS_PER_DAY)).ok()),
            _ => ScalarValue::TimestampMicrosecond(Some(as_of), Some(Arc::from("UTC"))),
        })
    }
}

impl ScalarUDFImpl for Clock {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn name(&self) -> &str {
        self.name
    }

    fn aliases(&self) -> &[String] {
        &self.aliases
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(self.data_type.clone())
    }

    fn invoke_with_args(&self, _: ScalarFunctionArgs) -> Result<ColumnarValue> {
        match self.value() {
            Some(value) => Ok(ColumnarValue::Scalar(value)),
            None => Err(DataFusionError::Execution(format!("{}() has no fixed value in a maintained view", self.name))),
        }
    }

    fn simplify(&self, args: Vec<Expr>, _: &SimplifyContext) -> Result<ExprSimplifyResult> {
        Ok(match self.value() {
            Some(value) => ExprSimplifyResult::Simplified(Expr::Literal(value, None)),
            None => ExprSimplifyResult::Original(args),
        })
    }
}
