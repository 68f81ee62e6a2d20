//! Relations by name: their list, and their rows.

use std::sync::Arc;

use actix_web::http::StatusCode;
use actix_web::{HttpRequest, HttpResponse, web};
use livelake_queries::RelationName;
use serde::{Deserialize, Serialize};

use super::envelope::{error, failure, success};
use super::{Shared, answer, negotiate};
use crate::encode::text::type_name;
use crate::service::{LakeError, LakeService, RelationKind, RelationStatus};

#[derive(Serialize)]
struct Listed {
    #[serde(flatten)]
    status: RelationStatus,
    columns: Vec<Column>,
}

#[derive(Serialize)]
struct Column {
    name: String,
    r#type: String,
    nullable: bool,
}

fn listed(status: RelationStatus) -> Listed {
    let columns = status
        .schema
        .fields()
        .iter()
        .map(|field| Column { name: field.name().clone(), r#type: type_name(field.data_type()), nullable: field.is_nullable() })
        .collect();
    Listed { status, columns }
}

/// `GET /api/v1/views`: views and materialized views.
pub(super) async fn list(shared: web::Data<Shared>) -> HttpResponse {
    let mut relations = shared.service.relations();
    relations.retain(|relation| matches!(relation.kind, RelationKind::View | RelationKind::MaterializedView));
    respond(relations, "views")
}

/// `GET /api/v1/relations`: everything that has rows.
pub(super) async fn relations(shared: web::Data<Shared>) -> HttpResponse {
    respond(shared.service.relations(), "relations")
}

fn respond(relations: Vec<RelationStatus>, what: &str) -> HttpResponse {
    let as_of = relations.iter().map(|relation| relation.as_of).min();
    let message = format!("{} {what}", relations.len());
    success(StatusCode::OK, &message, relations.into_iter().map(listed).collect::<Vec<_>>(), as_of)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RowsQuery {
    limit: Option<u64>,
    as_of: Option<u64>,
}

/// `GET /api/v1/views/{name}?limit=&as_of=`: a relation's rows.
pub(super) async fn rows(request: HttpRequest, name: web::Path<String>, shared: web::Data<Shared>) -> HttpResponse {
    let prepared = || {
        let relation = find(shared.service.as_ref(), &name)?;
        let query: RowsQuery = parse_query(&request)?;
        Ok((relation.name, query, negotiate::row_format(&request)?))
    };
    let (name, query, format) = match prepared() {
        Ok(prepared) => prepared,
        Err(error) => return failure(&error),
    };
    let mut sql = format!("SELECT * FROM {}", RelationName::parse(&name).quoted());
    if let Some(limit) = query.limit {
        sql.push_str(&format!(" LIMIT {limit}"));
    }
    if let Some(as_of) = query.as_of {
        sql.push_str(&format!(" AS OF {as_of}"));
    }
    let service = Arc::clone(&shared.service);
    answer::stream(&shared, format, async move { service.execute(&sql, Vec::new()).await }).await
}

/// The query string as `T`.
pub(super) fn parse_query<T: serde::de::DeserializeOwned>(request: &HttpRequest) -> Result<T, LakeError> {
    web::Query::<T>::from_query(request.query_string()).map(web::Query::into_inner).map_err(|cause| {
        error("invalid_parameter", 400, format!("the query string is wrong: {cause}"), Some("see /docs".to_owned()))
    })
}

/// The relation of that name (without a schema: in `public`).
pub(super) fn find(service: &dyn LakeService, name: &str) -> Result<RelationStatus, LakeError> {
    let full = if name.contains('.') { name.to_owned() } else { format!("public.{name}") };
    let mut relations = service.relations();
    if let Some(index) = relations.iter().position(|relation| relation.full_name() == full) {
        return Ok(relations.swap_remove(index));
    }
    let nearest = relations
        .iter()
        .map(|relation| (strsim::jaro_winkler(&relation.name, &full), &relation.name))
        .max_by(|left, right| left.0.total_cmp(&right.0))
        .filter(|(likeness, _)| *likeness > 0.7);
    let hint = match nearest {
        Some((_, nearest)) => format!("did you mean {nearest}?"),
        None => "GET /api/v1/relations lists all names".to_owned(),
    };
    Err(error("unknown_relation", 404, format!("there is no relation {full}"), Some(hint)))
}
