//! What PostgreSQL calls columns that a query does not name: a function's result like the function, a cast like its type, what is computed
//! by operators `?column?`. After `FigureColname` in PostgreSQL's `parse_target.c`.

use datafusion::sql::sqlparser::ast::{self, DataType, Expr, Ident, ObjectNamePart, SelectItem, SetExpr, TimezoneInfo, Value};

use crate::name::fold;

/// Names what a SELECT computes without a name, where no other column of it is called so: a relation's columns have different names.
pub(super) fn name_columns(select: &mut ast::Select) {
    let mut taken: Vec<String> = select.projection.iter().filter_map(called).collect();
    for item in &mut select.projection {
        let SelectItem::UnnamedExpr(expr) = item else { continue };
        if matches!(expr, Expr::Identifier(_) | Expr::CompoundIdentifier(_)) {
            continue;
        }
        let name = figured(expr).map_or_else(|| "?column?".to_owned(), |(name, _)| name);
        if !taken.contains(&name) {
            taken.push(name.clone());
            *item = SelectItem::ExprWithAlias { expr: expr.clone(), alias: Ident::with_quote('"', name) };
        }
    }
}

/// The name that a column has already.
fn called(item: &SelectItem) -> Option<String> {
    match item {
        SelectItem::ExprWithAlias { alias, .. } => Some(fold(alias)),
        SelectItem::UnnamedExpr(Expr::Identifier(ident)) => Some(fold(ident)),
        SelectItem::UnnamedExpr(Expr::CompoundIdentifier(parts)) => parts.last().map(fold),
        _ => None,
    }
}

/// How sure a name is: that of a type gives way to that of a column or function inside.
#[derive(PartialEq, PartialOrd)]
enum Strength {
    Weak,
    Strong,
}

fn figured(expr: &Expr) -> Option<(String, Strength)> {
    let strong = |name: &str| Some((name.to_owned(), Strength::Strong));
    match expr {
        Expr::Nested(inner) | Expr::Collate { expr: inner, .. } => figured(inner),
        Expr::Identifier(ident) => Some((fold(ident), Strength::Strong)),
        Expr::CompoundIdentifier(parts) => parts.last().map(|ident| (fold(ident), Strength::Strong)),
        Expr::Function(function) => match function.name.0.last() {
            Some(ObjectNamePart::Identifier(name)) => Some((fold(name), Strength::Strong)),
            _ => None,
        },
        Expr::Cast { expr, data_type, .. } => match figured(expr) {
            Some((name, Strength::Strong)) => Some((name, Strength::Strong)),
            weaker => type_name(data_type).map(|name| (name.to_owned(), Strength::Weak)).or(weaker),
        },
        Expr::TypedString(typed) => type_name(&typed.data_type).map(|name| (name.to_owned(), Strength::Weak)),
        Expr::Interval(_) => Some(("interval".to_owned(), Strength::Weak)),
        Expr::Value(value) => match value.value {
            Value::Boolean(_) => Some(("bool".to_owned(), Strength::Weak)),
            _ => None,
        },
        Expr::Case { else_result, .. } => match else_result.as_deref().and_then(figured) {
            Some((name, Strength::Strong)) => Some((name, Strength::Strong)),
            _ => Some(("case".to_owned(), Strength::Weak)),
        },
        Expr::Exists { .. } => strong("exists"),
        Expr::Subquery(query) => match query.body.as_ref() {
            SetExpr::Select(select) => match select.projection.first()? {
                SelectItem::UnnamedExpr(expr) => figured(expr),
                SelectItem::ExprWithAlias { alias, .. } => Some((fold(alias), Strength::Strong)),
                _ => None,
            },
            _ => None,
        },
        Expr::Array(_) => strong("array"),
        Expr::Tuple(_) => strong("row"),
        Expr::Extract { .. } => strong("extract"),
        Expr::Ceil { .. } => strong("ceil"),
        Expr::Floor { .. } => strong("floor"),
        Expr::Position { .. } => strong("position"),
        Expr::Substring { .. } => strong("substring"),
        Expr::Overlay { .. } => strong("overlay"),
        Expr::Trim { trim_where: Some(ast::TrimWhereField::Leading), .. } => strong("ltrim"),
        Expr::Trim { trim_where: Some(ast::TrimWhereField::Trailing), .. } => strong("rtrim"),
        Expr::Trim { .. } => strong("btrim"),
        Expr::AtTimeZone { .. } => strong("timezone"),
        _ => None,
    }
}

/// PostgreSQL's own name of a type.
fn type_name(data_type: &DataType) -> Option<&'static str> {
    Some(match data_type {
        DataType::Boolean | DataType::Bool => "bool",
        DataType::SmallInt(_) | DataType::Int2(_) => "int2",
        DataType::Int(_) | DataType::Integer(_) | DataType::Int4(_) => "int4",
        DataType::BigInt(_) | DataType::Int8(_) => "int8",
        DataType::Real | DataType::Float4 => "float4",
        DataType::Double(_) | DataType::DoublePrecision | DataType::Float8 | DataType::Float(_) => "float8",
        DataType::Decimal(_) | DataType::Numeric(_) | DataType::Dec(_) => "numeric",
        DataType::Text => "text",
        DataType::Varchar(_) | DataType::CharacterVarying(_) => "varchar",
        DataType::Char(_) | DataType::Character(_) => "bpchar",
        DataType::Date => "date",
        DataType::Time(_, TimezoneInfo::None | TimezoneInfo::WithoutTimeZone) => "time",
        DataType::Timestamp(_, TimezoneInfo::None | TimezoneInfo::WithoutTimeZone) => "timestamp",
        DataType::Timestamp(_, _) => "timestamptz",
        DataType::Interval { .. } => "interval",
        DataType::Bytea => "bytea",
        DataType::JSON => "json",
        DataType::JSONB => "jsonb",
        DataType::Uuid => "uuid",
        _ => return None,
    })
}
