//! Statements that change what the lake consists of, sent while it runs.
//!
//! They are kept in a file beside the tables, in order, and applied after the folder's files at the next start.

use std::io::Write;
use std::sync::Arc;

use livelake_dataflow::protocol::EngineError;
use livelake_queries::Position;
use livelake_queries::catalog::{Created, Relation};
use livelake_queries::statement::{DropFunction, DropRelation, RelationKind, Statement};

use crate::feeder::StopFeeding;
use crate::lake::failure::{internal, not_supported};
use crate::lake::folder::RUNTIME_STATEMENTS;
use crate::lake::store::{new_sinks, sink_table};
use crate::lake::{Definitions, Lake};
use crate::service::LakeError;
use crate::sink_driver::ChangeSinks;

impl Lake {
    fn define(&self, definitions: Definitions) {
        *self.0.definitions.write().unwrap_or_else(std::sync::PoisonError::into_inner) = definitions;
    }

    /// Runs a CREATE. Answered when the new relation is whole; others go on meanwhile.
    ///
    /// # Errors
    /// It does not plan, an option makes no sense, or the engine cannot do it; nothing is left behind then.
    pub async fn create(&self, statement: &Statement) -> Result<(), LakeError> {
        let _one_at_a_time = self.0.changing.lock().await;
        let before = self.definitions();
        let mut catalog = before.catalog.as_ref().clone();
        if let Created::Existed(_) = catalog.create(statement)? {
            return Ok(());
        }
        let mut stored = before.stored.clone();
        let added: Vec<Arc<Relation>> =
            catalog.iter().filter(|relation| before.catalog.by_id(relation.id).is_none()).cloned().collect();
        for base in added.iter().filter(|relation| relation.is_base()) {
            stored.0.insert(base.id, (0..base.visible).collect());
        }
        let after = Definitions { catalog: Arc::new(catalog), stored };
        let sinks = new_sinks(&before, &after, self.path(), self.0.interval)?;
        if !sinks.is_empty() && self.0.sinks.get().is_none() {
            return Err(not_supported("this lake was started without tables, so sinks cannot be added while it runs"));
        }
        self.define(after);
        for new in &added {
            if let Err(error) = self.install(new) {
                for new in &added {
                    // those that were not reached are not there
                    let _ = self.engine().drop_relation(new.id);
                }
                self.define(before);
                return Err(error);
            }
        }
        if let Some(driver) = self.0.sinks.get().map(|sinks| &sinks.driver) {
            for sink in sinks {
                driver.send(ChangeSinks::Add(sink)).await.map_err(internal)??;
            }
        }
        self.remember(&format!("{};\n", statement.text))?;
        self.start_sources();
        self.flush().await?;
        Ok(())
    }

    /// Runs a DROP.
    ///
    /// # Errors
    /// It does not exist, or others read it and CASCADE is not said.
    pub async fn drop_relation(
        &self,
        statement: &Statement,
        request: &DropRelation,
        position: &Position,
    ) -> Result<(), LakeError> {
        let _one_at_a_time = self.0.changing.lock().await;
        let before = self.definitions();
        let mut catalog = before.catalog.as_ref().clone();
        let dropped = catalog.drop_relation(request, position)?;
        for relation in &dropped {
            if let Some(sinks) = self.0.sinks.get() {
                let removal = match relation.kind {
                    RelationKind::Sink => ChangeSinks::RemoveTable(sink_table(relation)),
                    _ => ChangeSinks::Remove(relation.id),
                };
                sinks.driver.send(removal).await.map_err(internal)??;
            }
            if relation.kind == RelationKind::Source {
                let feeder = self.sources_now().remove(&relation.name.to_string()).and_then(|source| source.feeder);
                if let Some(feeder) = feeder {
                    // one that is gone has stopped
                    let _ = feeder.send(StopFeeding).await;
                }
            }
            // a view's errors go with the view
            let in_engine = relation.is_base() || matches!(relation.kind, RelationKind::MaterializedView | RelationKind::Index);
            if in_engine {
                self.engine().drop_relation(relation.id).map_err(|error| self.in_use(error))?;
                self.forget_errors(relation.id);
            }
        }
        self.define(Definitions { catalog: Arc::new(catalog), stored: before.stored });
        self.remember(&format!("{};\n", statement.text))
    }

    /// An index that a view uses is known to the engine only.
    fn in_use(&self, error: EngineError) -> LakeError {
        let EngineError::InUse { relation, reader } = &error else { return error.into() };
        let catalog = self.definitions().catalog;
        let name = |id| catalog.by_id(id).map_or_else(|| id.to_string(), |relation| relation.name.to_string());
        LakeError {
            code: "in_use",
            sqlstate: "2BP01",
            http_status: 409,
            message: format!("{} cannot be dropped: {} uses it", name(*relation), name(*reader)),
            hint: None,
        }
    }

    /// Runs a DROP FUNCTION.
    ///
    /// # Errors
    /// It does not exist, or a view or another function calls it.
    pub async fn drop_function(
        &self,
        statement: &Statement,
        request: &DropFunction,
        position: &Position,
    ) -> Result<(), LakeError> {
        let _one_at_a_time = self.0.changing.lock().await;
        let before = self.definitions();
        let mut catalog = before.catalog.as_ref().clone();
        catalog.drop_function(request, position)?;
        self.define(Definitions { catalog: Arc::new(catalog), stored: before.stored });
        self.remember(&format!("{};\n", statement.text))
    }

    fn remember(&self, text: &str) -> Result<(), LakeError> {
        let path = self.path().join(RUNTIME_STATEMENTS);
        let write = || {
            if let Some(folder) = path.parent() {
                std::fs::create_dir_all(folder)?;
            }
            let mut file = std::fs::OpenOptions::new().create(true).append(true).open(&path)?;
            file.write_all(text.as_bytes())?;
            file.sync_all()
        };
        write().map_err(|error| {
            internal(format!("the statement holds until the next start only: cannot write {}: {error}", path.display()))
        })
    }
}
