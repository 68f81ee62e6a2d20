//! The running lake as its servers see it.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use arrow::array::{AsArray, StringArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::record_batch::RecordBatch;
use async_trait::async_trait;
use datafusion::common::ScalarValue;
use datafusion::prelude::SessionContext;
use futures::StreamExt;
use livelake_dataflow::plan::RelationId;
use livelake_dataflow::protocol::Timestamp;
use livelake_queries::explain::{seeks_text, view_text};
use livelake_queries::plan::{plan_query, query_plan, view_plan};
use livelake_queries::session::{describe, parameter_types};
use livelake_queries::statement::{
    Explain, ExplainTarget, RelationKind as SqlKind, SessionCommand, Statement, StatementKind, parse_statement,
};
use livelake_queries::{Position, RelationName};

use crate::lake::Lake;
use crate::lake::failure::{internal, not_supported};
use crate::lake::upkeep::{epochs_batch, maintenance_batch};
use crate::service::{
    Answer, EpochStatus, Health, LakeError, LakeService, RelationKind, RelationStatus, SourceStatus, SubscribeOptions,
    Subscription,
};

/// Rows of text, for SHOW and EXPLAIN.
fn text_answer(column: &str, lines: Vec<String>, as_of: Timestamp, tag: &str) -> Result<Answer, LakeError> {
    let schema: SchemaRef = Arc::new(Schema::new(vec![Field::new(column, DataType::Utf8, false)]));
    let rows = RecordBatch::try_new(Arc::clone(&schema), vec![Arc::new(StringArray::from(lines))]).map_err(internal)?;
    Ok(Answer { schema, as_of, rows: futures::stream::iter([Ok(rows)]).boxed(), tag: tag.to_owned() })
}

fn done(as_of: Timestamp, tag: &str) -> Answer {
    Answer { schema: Arc::new(Schema::empty()), as_of, rows: futures::stream::empty().boxed(), tag: tag.to_owned() }
}

impl Lake {
    pub(super) fn relation(&self, name: &str) -> Result<Arc<livelake_queries::catalog::Relation>, LakeError> {
        let name = RelationName::parse(name);
        Ok(Arc::clone(self.definitions().catalog.expect(&name, &Position::default())?))
    }

    async fn explain(&self, explain: &Explain, position: &Position) -> Result<Answer, LakeError> {
        let definitions = self.definitions();
        let text = match &explain.target {
            ExplainTarget::Relation(name) => {
                let relation = definitions.catalog.expect(name, position)?;
                let plan = view_plan(&definitions.catalog, relation.id, &definitions.stored)?;
                let text = view_text(&plan, &definitions.catalog);
                let measured = if explain.analyze { self.measured(relation.id, &plan.reads) } else { String::new() };
                text + &measured
            }
            ExplainTarget::View(_) if explain.analyze => {
                return Err(not_supported(
                    "a view that does not run has nothing to measure: create it, then EXPLAIN ANALYZE its name",
                ));
            }
            ExplainTarget::View(view) => {
                let planned = plan_query(&definitions.catalog, &view.query, position)?;
                view_text(&query_plan(&planned, &definitions.stored, position)?, &definitions.catalog)
            }
            ExplainTarget::Query(select) => {
                let (frame, as_of) = self.plan(select, position).await?;
                if explain.analyze {
                    let measured = frame.explain(false, true)?.collect().await?;
                    let texts = measured.iter().filter_map(|batch| batch.column_by_name("plan")?.as_string_opt::<i32>());
                    let lines = texts
                        .flat_map(|texts| texts.iter().flatten().flat_map(str::lines).map(str::to_owned).collect::<Vec<_>>());
                    return text_answer("plan", lines.collect(), as_of, "EXPLAIN");
                }
                let plan = frame.into_optimized_plan()?;
                format!("{}\n{}", plan.display_indent(), seeks_text(&plan))
            }
        };
        text_answer("plan", text.lines().map(str::to_owned).collect(), self.newest(), "EXPLAIN")
    }

    /// What a view and its inputs hold now.
    fn measured(&self, view: RelationId, reads: &[RelationId]) -> String {
        let catalog = self.definitions().catalog;
        let mut text = "\n\nmeasured\n".to_owned();
        for id in std::iter::once(&view).chain(reads) {
            let (Some(relation), size) = (catalog.by_id(*id), self.engine().size(*id)) else { continue };
            text.push_str(&match size {
                Some(size) => format!(
                    "  {}: {} rows, {} updates, {} bytes, complete through {}\n",
                    relation.name,
                    size.rows,
                    size.updates,
                    size.bytes,
                    self.engine().frontier(*id).unwrap_or(0).saturating_sub(1).min(self.engine().last_tick()),
                ),
                None => format!("  {}: its rows are not kept\n", relation.name),
            });
        }
        let kept = catalog.by_id(view).and_then(|view| catalog.get(&view.name.errors()));
        text.extend(self.view_errors(view).words(kept).map(|words| format!("  {words}\n")));
        text
    }

    async fn run_statement(&self, statement: &Statement, parameters: Vec<ScalarValue>) -> Result<Answer, LakeError> {
        let position = &statement.position;
        match &statement.kind {
            StatementKind::Query(select) => self.answer(select, position, parameters).await,
            StatementKind::Insert(_) | StatementKind::Update(_) | StatementKind::Delete(_) => {
                self.change(&statement.kind, position, parameters).await
            }
            StatementKind::CreateSource(_) => self.created(statement, "CREATE SOURCE").await,
            StatementKind::CreateTable(_) => self.created(statement, "CREATE TABLE").await,
            StatementKind::CreateView(view) => {
                self.created(statement, if view.materialized { "CREATE MATERIALIZED VIEW" } else { "CREATE VIEW" }).await
            }
            StatementKind::CreateSink(_) => self.created(statement, "CREATE SINK").await,
            StatementKind::CreateIndex(_) => self.created(statement, "CREATE INDEX").await,
            StatementKind::CreateFunction(_) => self.created(statement, "CREATE FUNCTION").await,
            StatementKind::DropFunction(request) => {
                self.drop_function(statement, request, position).await?;
                Ok(done(self.newest(), "DROP FUNCTION"))
            }
            StatementKind::CreateSchema(_) => Ok(done(self.newest(), "CREATE SCHEMA")),
            StatementKind::Drop(request) => {
                self.drop_relation(statement, request, position).await?;
                Ok(done(self.newest(), &format!("DROP {}", request.kind.as_str().to_uppercase())))
            }
            StatementKind::Show(show) => self.batch_answer(self.definitions().catalog.show(show, position)?, "SHOW"),
            StatementKind::ShowSetting(name) => {
                let value = match name.to_ascii_lowercase().as_str() {
                    "server_version" => "16.0 (livelake)",
                    "server_encoding" | "client_encoding" => "UTF8",
                    "timezone" | "time zone" => "UTC",
                    "transaction isolation level" | "transaction_isolation" => "serializable",
                    "standard_conforming_strings" => "on",
                    "datestyle" => "ISO, MDY",
                    _ => "",
                };
                text_answer(name, vec![value.to_owned()], self.newest(), "SHOW")
            }
            StatementKind::Explain(explain) => self.explain(explain, position).await,
            StatementKind::Verify(name) => {
                let relation = Arc::clone(self.definitions().catalog.expect(name, position)?);
                let verdict = self.verify(&relation, self.newest()).await?;
                let mut lines = vec![verdict.summary()];
                for difference in verdict.differences.iter().take(100) {
                    let row =
                        arrow::util::pretty::pretty_format_batches(std::slice::from_ref(&difference.row)).map_err(internal)?;
                    lines.push(format!("{}\n{row}", if difference.missing { "missing" } else { "should not be there" }));
                }
                text_answer("verdict", lines, verdict.as_of, "VERIFY")
            }
            StatementKind::ShowEpochs(limit) => {
                let limit = limit.and_then(|limit| usize::try_from(limit).ok()).unwrap_or(usize::MAX);
                self.batch_answer(epochs_batch(&self.epochs(limit))?, "SHOW")
            }
            StatementKind::Vacuum(table) => {
                let done = self.vacuum(table.as_ref()).await?;
                self.batch_answer(maintenance_batch(&done)?, "VACUUM")
            }
            StatementKind::CopyToFile(copy) => {
                let (as_of, rows) = self.copy_to_file(copy, position, parameters).await?;
                Ok(done(as_of, &format!("COPY {rows}")))
            }
            StatementKind::Flush => {
                self.flush().await?;
                Ok(done(self.newest(), "FLUSH"))
            }
            StatementKind::Session(command) => Ok(done(
                self.newest(),
                match command {
                    SessionCommand::Begin => "BEGIN",
                    SessionCommand::Commit => "COMMIT",
                    SessionCommand::Rollback => "ROLLBACK",
                    SessionCommand::Set(_) => "SET",
                    SessionCommand::Other(tag) => tag,
                },
            )),
            StatementKind::Truncate(names) => {
                let [name] = names.as_slice() else {
                    return Err(not_supported("TRUNCATE of several tables at once: truncate one after another"));
                };
                let delete = parse_statement(&format!("DELETE FROM {}", name.quoted()))?;
                self.change(&delete.kind, position, Vec::new()).await?;
                Ok(done(self.newest(), "TRUNCATE TABLE"))
            }
            StatementKind::Subscribe(_) | StatementKind::CopySubscribe(_) | StatementKind::Copy(_) => Err(not_supported(
                "this statement needs a connection that can stream: use psql with COPY (SUBSCRIBE …) TO STDOUT",
            )),
        }
    }

    fn batch_answer(&self, rows: RecordBatch, tag: &str) -> Result<Answer, LakeError> {
        Ok(Answer {
            schema: rows.schema(),
            as_of: self.newest(),
            rows: futures::stream::iter([Ok(rows)]).boxed(),
            tag: tag.to_owned(),
        })
    }

    async fn created(&self, statement: &Statement, tag: &str) -> Result<Answer, LakeError> {
        self.create(statement).await?;
        Ok(done(self.newest(), tag))
    }
}

#[async_trait]
impl LakeService for Lake {
    async fn execute(&self, sql: &str, parameters: Vec<ScalarValue>) -> Result<Answer, LakeError> {
        let statement = parse_statement(sql)?;
        if !self.0.ready.load(Ordering::Acquire)
            && !matches!(statement.kind, StatementKind::Session(_) | StatementKind::ShowSetting(_))
        {
            return Err(LakeError {
                code: "unavailable",
                sqlstate: "57P03",
                http_status: 503,
                message: "the lake is starting: views answer when they are whole".to_owned(),
                hint: Some("try again shortly; /health says when it runs".to_owned()),
            });
        }
        let lake = self.clone();
        // planning and answering belong on the runtime's threads, not on a server's
        tokio::spawn(async move { lake.run_statement(&statement, parameters).await }).await.map_err(internal)?
    }

    async fn describe(&self, sql: &str) -> Result<(SchemaRef, Vec<DataType>), LakeError> {
        let statement = parse_statement(sql)?;
        match &statement.kind {
            StatementKind::Query(select) => {
                let context = self.session_of(&self.moment(select.as_of).await?)?;
                let description = describe(&context, &self.definitions().catalog, &select.query, &statement.position).await?;
                Ok((description.schema, description.parameters))
            }
            StatementKind::Show(show) => Ok((self.definitions().catalog.show(show, &statement.position)?.schema(), Vec::new())),
            StatementKind::ShowSetting(name) => {
                Ok((Arc::new(Schema::new(vec![Field::new(name, DataType::Utf8, false)])), Vec::new()))
            }
            StatementKind::ShowEpochs(_) => Ok((epochs_batch(&[])?.schema(), Vec::new())),
            StatementKind::Vacuum(_) => Ok((maintenance_batch(&[])?.schema(), Vec::new())),
            StatementKind::Explain(_) => Ok((Arc::new(Schema::new(vec![Field::new("plan", DataType::Utf8, false)])), Vec::new())),
            StatementKind::Verify(_) => {
                Ok((Arc::new(Schema::new(vec![Field::new("verdict", DataType::Utf8, false)])), Vec::new()))
            }
            StatementKind::Insert(_) | StatementKind::Update(_) | StatementKind::Delete(_) => {
                let context = self.session_at(self.newest());
                let planned = livelake_queries::session::change(
                    &context,
                    &self.definitions().catalog,
                    &statement.kind,
                    &statement.position,
                )
                .await?;
                let parameters = parameter_types(&planned.rows)?;
                let schema = planned.returning.map_or_else(|| Arc::new(Schema::empty()), |returning| returning.schema);
                Ok((schema, parameters))
            }
            _ => Ok((Arc::new(Schema::empty()), Vec::new())),
        }
    }

    async fn session(&self) -> Result<(SessionContext, Timestamp), LakeError> {
        let as_of = self.newest();
        Ok((self.session_at(as_of), as_of))
    }

    fn relations(&self) -> Vec<RelationStatus> {
        let catalog = self.definitions().catalog;
        let mut relations: Vec<RelationStatus> = catalog
            .iter()
            .filter_map(|relation| {
                let kind = match relation.kind {
                    SqlKind::Source => RelationKind::Source,
                    SqlKind::Table => RelationKind::Table,
                    SqlKind::View => RelationKind::View,
                    SqlKind::MaterializedView => RelationKind::MaterializedView,
                    SqlKind::Errors => RelationKind::Errors,
                    SqlKind::Sink | SqlKind::Index => return None,
                };
                let size = self.engine().size(relation.id);
                let errors = self.view_errors(relation.id);
                Some(RelationStatus {
                    name: relation.name.to_string(),
                    kind,
                    schema: relation.visible_schema(),
                    key: relation.key_names().into_iter().map(str::to_owned).collect(),
                    rows: size.map(|size| u64::try_from(size.rows).unwrap_or(0)),
                    bytes: size.map(|size| size.bytes),
                    as_of: self
                        .engine()
                        .frontier(relation.id)
                        .map_or(0, |frontier| frontier.saturating_sub(1))
                        .min(self.engine().last_tick()),
                    failure: errors.words(catalog.get(&relation.name.errors()).filter(|_| !relation.is_base())),
                    sql: relation.sql.clone(),
                })
            })
            .collect();
        relations.sort_by(|left, right| left.name.cmp(&right.name));
        relations
    }

    fn sources(&self) -> Vec<SourceStatus> {
        self.source_statuses()
    }

    fn epochs(&self, limit: usize) -> Vec<EpochStatus> {
        let epochs = self.0.epochs.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        epochs.iter().take(limit).cloned().collect()
    }

    fn health(&self) -> Health {
        let mut problems = Vec::new();
        problems.extend(self.engine().failure().map(|reason| format!("the engine failed: {reason}")));
        if let Some(sinks) = self.0.sinks.get()
            && let Some(failure) = sinks.failure.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone()
        {
            problems.push(format!("the last epoch could not be committed: {failure}"));
        }
        for source in self.source_statuses().into_iter().filter(|source| source.state == "failed") {
            problems.push(format!("source {} failed: {}", source.name, source.message.unwrap_or_default()));
        }
        problems.extend(self.0.memory.problem());
        if !self.clock().connected() {
            problems.push("the clock stopped, so nothing becomes visible any more: restart the lake".to_owned());
        }
        let ready = self.0.ready.load(Ordering::Acquire);
        let status = if !problems.is_empty() {
            "failed"
        } else if ready {
            "running"
        } else {
            problems.extend(self.waits_for());
            "starting"
        };
        Health { status: status.to_owned(), problems, hydration: self.0.hydration.status() }
    }

    fn metrics(&self) -> String {
        super::metrics::text(self, self.0.begun.elapsed())
    }

    async fn subscribe(&self, relation: &str, options: SubscribeOptions) -> Result<Subscription, LakeError> {
        let relation = self.relation(relation)?;
        if relation.kind == SqlKind::View {
            let query = format!("SUBSCRIBE (SELECT * FROM \"{}\".\"{}\")", relation.name.schema, relation.name.name);
            return self.subscribe_sql(&query).await;
        }
        self.follow(relation.id, relation.visible_schema(), options, None)
    }

    async fn subscribe_sql(&self, sql: &str) -> Result<Subscription, LakeError> {
        let statement = parse_statement(sql)?;
        match &statement.kind {
            StatementKind::Subscribe(subscribe) | StatementKind::CopySubscribe(subscribe) => {
                self.subscribe_to(subscribe, &statement.position).await
            }
            _ => Err(not_supported("this is not a SUBSCRIBE")),
        }
    }

    async fn insert(&self, table: &str, rows: Vec<RecordBatch>) -> Result<u64, LakeError> {
        let relation = self.relation(table)?;
        if relation.kind != SqlKind::Table {
            return Err(not_supported(format!("{} is a {}: only tables can be written to", relation.name, relation.kind)));
        }
        let schema = relation.visible_schema();
        let mut count = 0;
        for batch in rows {
            let columns = schema
                .fields()
                .iter()
                .map(|field| match batch.column_by_name(field.name()) {
                    Some(column) => Arc::clone(column),
                    None => arrow::array::new_null_array(field.data_type(), batch.num_rows()),
                })
                .collect();
            let fields: Vec<Field> = schema.fields().iter().map(|field| field.as_ref().clone().with_nullable(true)).collect();
            let fields: Vec<Field> = fields
                .into_iter()
                .zip(&columns as &Vec<arrow::array::ArrayRef>)
                .map(|(field, column)| field.with_data_type(column.data_type().clone()))
                .collect();
            let batch = RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).map_err(internal)?;
            count += self.insert_rows(&relation, &batch).await?;
        }
        Ok(count)
    }
}
