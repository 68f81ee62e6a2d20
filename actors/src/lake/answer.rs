//! Answering queries: DataFusion over peeks at one timestamp.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use datafusion::common::{ParamValues, ScalarValue};
use datafusion::prelude::{DataFrame, SessionContext};
use futures::{FutureExt, StreamExt};
use livelake_dataflow::errors::function_failed;
use livelake_dataflow::protocol::Timestamp;
use livelake_queries::Position;
use livelake_queries::session::{context, query};
use livelake_queries::statement::SelectQuery;

use crate::lake::Lake;
use crate::lake::failure::internal;
use crate::lake::history::Moment;
use crate::lake::reader::EngineReader;
use crate::service::{Answer, LakeError};

impl Lake {
    /// A session whose relations are read from memory at one timestamp.
    pub fn session_at(&self, as_of: Timestamp) -> SessionContext {
        let definitions = self.definitions();
        let reader =
            EngineReader { engine: self.engine().clone(), catalog: Arc::clone(&definitions.catalog), stored: definitions.stored };
        context(&definitions.catalog, Arc::new(reader), as_of)
    }

    /// A session whose relations are read at one moment, from memory or from snapshots.
    pub(crate) fn session_of(&self, moment: &Moment) -> Result<SessionContext, LakeError> {
        Ok(match moment.epoch {
            None => self.session_at(moment.as_of),
            Some(epoch) => context(&self.definitions().catalog, Arc::new(self.history(epoch)?), moment.as_of),
        })
    }

    /// Plans a query at its moment, or the newest.
    ///
    /// # Errors
    /// It does not plan, or the moment is too long ago.
    pub async fn plan(&self, select: &SelectQuery, position: &Position) -> Result<(DataFrame, Timestamp), LakeError> {
        let moment = self.moment(select.as_of).await?;
        let context = self.session_of(&moment)?;
        let frame = query(&context, &self.definitions().catalog, &select.query, position).await?;
        Ok((frame, moment.as_of))
    }

    /// Answers a query.
    ///
    /// # Errors
    /// It does not plan; what fails while rows are made comes in the stream.
    pub async fn answer(
        &self,
        select: &SelectQuery,
        position: &Position,
        parameters: Vec<ScalarValue>,
    ) -> Result<Answer, LakeError> {
        let (mut frame, as_of) = self.plan(select, position).await?;
        if !parameters.is_empty() {
            frame = frame.with_param_values(ParamValues::from(parameters))?;
        }
        // a function that panics fails its query, not the client's connection
        let stream = AssertUnwindSafe(frame.execute_stream()).catch_unwind().await;
        let stream = stream.map_err(|panic| internal(function_failed(panic.as_ref())))??;
        let schema = stream.schema();
        let rows = AssertUnwindSafe(stream).catch_unwind().map(|batch| match batch {
            Ok(batch) => batch.map_err(LakeError::from),
            Err(panic) => Err(internal(function_failed(panic.as_ref()))),
        });
        Ok(Answer { schema, as_of, rows: rows.boxed(), tag: "SELECT".to_owned() })
    }
}
