//! What SHOW answers.

use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema};

use super::{Catalog, Function, Relation};
use crate::error::{Position, SqlError};
use crate::name::RelationName;
use crate::statement::Show;
use crate::types::sql_name;

impl Catalog {
    /// The rows of a SHOW.
    ///
    /// # Errors
    /// If it asks about a relation that does not exist.
    pub fn show(&self, show: &Show, position: &Position) -> Result<RecordBatch, SqlError> {
        match show {
            Show::Relations(kind) => {
                let relations: Vec<&Arc<Relation>> = self.of_kind(*kind).collect();
                let column = |text: fn(&Relation) -> String| texts(relations.iter().map(|relation| Some(text(relation))));
                Ok(batch(vec![
                    ("name", column(|relation| relation.name.name.clone())),
                    ("schema", column(|relation| relation.name.schema.clone())),
                    ("key", column(|relation| relation.key_names().join(", "))),
                ]))
            }
            Show::Functions => {
                let functions: Vec<&Function> = self.functions().map(AsRef::as_ref).collect();
                let column = |text: fn(&Function) -> String| texts(functions.iter().map(|function| Some(text(function))));
                Ok(batch(vec![
                    ("name", column(|function| function.definition.name.clone())),
                    ("type", column(|function| function.definition.returns.to_string())),
                    ("create_sql", column(|function| function.sql.clone())),
                ]))
            }
            Show::Schemas => Ok(batch(vec![("schema", texts(self.schemas().into_iter().map(Some)))])),
            Show::Columns(name) => {
                let relation = self.any(name, position)?;
                let fields = relation.schema.fields();
                Ok(batch(vec![
                    ("name", texts(fields.iter().map(|field| Some(field.name().clone())))),
                    ("type", texts(fields.iter().map(|field| Some(sql_name(field.data_type()))))),
                    ("nullable", truths(fields.iter().map(|field| field.is_nullable()))),
                    ("key", truths((0..fields.len()).map(|index| relation.key.contains(&index)))),
                    ("hidden", truths((0..fields.len()).map(|index| index >= relation.visible))),
                ]))
            }
            Show::Create(name) => {
                let relation = self.any(name, position)?;
                Ok(batch(vec![
                    ("name", texts([Some(relation.name.to_string())])),
                    ("create_sql", texts([Some(relation.show_create())])),
                ]))
            }
        }
    }

    fn any(&self, name: &RelationName, position: &Position) -> Result<&Arc<Relation>, SqlError> {
        self.get(name).or_else(|| self.sink(name)).ok_or_else(|| self.unknown(name, position.clone()))
    }
}

fn texts(values: impl IntoIterator<Item = Option<String>>) -> ArrayRef {
    Arc::new(values.into_iter().collect::<StringArray>())
}

fn truths(values: impl IntoIterator<Item = bool>) -> ArrayRef {
    Arc::new(BooleanArray::from(values.into_iter().collect::<Vec<bool>>()))
}

fn batch(columns: Vec<(&str, ArrayRef)>) -> RecordBatch {
    let fields: Vec<Field> = columns.iter().map(|(name, array)| Field::new(*name, array.data_type().clone(), true)).collect();
    let fallback = Arc::new(Schema::new(vec![Field::new("name", DataType::Utf8, true)]));
    let arrays = columns.into_iter().map(|(_, array)| array).collect();
    // The columns were all made from the same rows.
    RecordBatch::try_new(Arc::new(Schema::new(fields)), arrays).unwrap_or_else(|_| RecordBatch::new_empty(fallback))
}
