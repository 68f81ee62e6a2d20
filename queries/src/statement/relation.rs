//! CREATE and DROP of sources, tables, views and sinks.

use datafusion::sql::sqlparser::ast::{self, ColumnDef, ColumnOption, TableConstraint};
use datafusion::sql::sqlparser::keywords::Keyword;
use datafusion::sql::sqlparser::parser::{IsOptional, Parser, ParserError};
use datafusion::sql::sqlparser::tokenizer::{Location, Token};

use super::parse::{Context, error_at, expect_word, parse_name, peek_word, take_word, take_words};
use super::{
    Check, Column, Columns, CreateIndex, CreateSink, CreateSource, CreateTable, CreateView, DropRelation, Options, RelationKind,
    StatementKind,
};
use crate::name::{RelationName, fold};
use crate::types::arrow_type;

pub(super) fn parse(parser: &mut Parser<'_>, context: &Context<'_>) -> Result<Option<StatementKind>, ParserError> {
    if peek_word(parser, 0, "CREATE") {
        if take_words(parser, &["CREATE", "SOURCE"]) {
            return parse_source(parser, context).map(Some);
        }
        if take_words(parser, &["CREATE", "SINK"]) {
            return parse_sink(parser, context).map(Some);
        }
        if take_words(parser, &["CREATE", "INDEX"]) {
            return parse_index(parser, context).map(Some);
        }
        if take_words(parser, &["CREATE", "TABLE"]) {
            return parse_table(parser, context).map(Some);
        }
        if peek_word(parser, 1, "VIEW") || (peek_word(parser, 1, "MATERIALIZED") && peek_word(parser, 2, "VIEW")) {
            parser.advance_token();
            let place = parser.peek_token_ref().span.start;
            let view = parser.parse_create_view(false, false, false, None)?;
            return view_of(view, place, context).map(|view| Some(StatementKind::CreateView(view)));
        }
    }
    if take_word(parser, "DROP") {
        return parse_drop(parser, context).map(Some);
    }
    Ok(None)
}

/// A view as sqlparser read it, checked for parts that mean nothing here.
pub(super) fn view_of(view: ast::CreateView, place: Location, context: &Context<'_>) -> Result<CreateView, ParserError> {
    if view.options != ast::CreateTableOptions::None {
        return error_at("a view has no options", place);
    }
    let name = RelationName::from_ast(&view.name, context.position).or_else(|error| error_at(error.message, place))?;
    let columns = view.columns.iter().map(|column| fold(&column.name)).collect();
    Ok(CreateView { name, materialized: view.materialized, if_not_exists: view.if_not_exists, columns, query: view.query })
}

fn parse_if_not_exists(parser: &mut Parser<'_>) -> bool {
    parser.parse_keywords(&[Keyword::IF, Keyword::NOT, Keyword::EXISTS])
}

fn parse_source(parser: &mut Parser<'_>, context: &Context<'_>) -> Result<StatementKind, ParserError> {
    let if_not_exists = parse_if_not_exists(parser);
    let name = parse_name(parser, context)?;
    let columns = parse_columns(parser, &name, context)?;
    let place = parser.peek_token_ref().span.start;
    let options = Options::parse(parser, context.position)?;
    if options.iter().next().is_none() {
        return error_at(
            "expected WITH (connector = '…', …) after the source's columns",
            if place.line == 0 { place_of(context) } else { place },
        );
    }
    Ok(StatementKind::CreateSource(CreateSource { name, if_not_exists, columns, options }))
}

fn parse_table(parser: &mut Parser<'_>, context: &Context<'_>) -> Result<StatementKind, ParserError> {
    let if_not_exists = parse_if_not_exists(parser);
    let name = parse_name(parser, context)?;
    let place = parser.peek_token_ref().span.start;
    let columns = parse_columns(parser, &name, context)?;
    if columns.columns.is_empty() {
        return error_at("a table needs columns: CREATE TABLE name (column type, …)", place);
    }
    if parser.peek_keyword(Keyword::WITH) {
        return error_at(
            "a table has no options; a relation that is fed from outside is a SOURCE",
            parser.peek_token().span.start,
        );
    }
    Ok(StatementKind::CreateTable(CreateTable { name, if_not_exists, columns }))
}

fn parse_index(parser: &mut Parser<'_>, context: &Context<'_>) -> Result<StatementKind, ParserError> {
    let if_not_exists = parse_if_not_exists(parser);
    let name = parse_name(parser, context)?;
    expect_word(parser, "ON")?;
    let on = parse_name(parser, context)?;
    let columns = parser.parse_parenthesized_column_list(IsOptional::Mandatory, false)?;
    // as PostgreSQL: an index lives in its relation's schema
    let name = RelationName::new(on.schema.as_str(), name.name.as_str());
    let columns = columns.iter().map(fold).collect();
    Ok(StatementKind::CreateIndex(CreateIndex { name, if_not_exists, on, columns }))
}

fn parse_sink(parser: &mut Parser<'_>, context: &Context<'_>) -> Result<StatementKind, ParserError> {
    let if_not_exists = parse_if_not_exists(parser);
    let name = parse_name(parser, context)?;
    expect_word(parser, "FROM")?;
    let from_position = context.position.at(parser.peek_token_ref().span.start);
    let from = parse_name(parser, context)?;
    let options = Options::parse(parser, context.position)?;
    Ok(StatementKind::CreateSink(CreateSink { name, if_not_exists, from, from_position, options }))
}

fn parse_drop(parser: &mut Parser<'_>, context: &Context<'_>) -> Result<StatementKind, ParserError> {
    let kinds = [
        (&["SOURCE"][..], RelationKind::Source),
        (&["TABLE"], RelationKind::Table),
        (&["MATERIALIZED", "VIEW"], RelationKind::MaterializedView),
        (&["VIEW"], RelationKind::View),
        (&["SINK"], RelationKind::Sink),
        (&["INDEX"], RelationKind::Index),
    ];
    let Some((_, kind)) = kinds.into_iter().find(|(words, _)| take_words(parser, words)) else {
        return parser
            .expected("SOURCE, TABLE, VIEW, MATERIALIZED VIEW, SINK, INDEX or FUNCTION after DROP", parser.peek_token());
    };
    let if_exists = parser.parse_keywords(&[Keyword::IF, Keyword::EXISTS]);
    let names = parser.parse_comma_separated(|parser| parse_name(parser, context))?;
    let cascade = parser.parse_keyword(Keyword::CASCADE);
    if !cascade {
        let _ = parser.parse_keyword(Keyword::RESTRICT);
    }
    Ok(StatementKind::Drop(DropRelation { kind, names, if_exists, cascade }))
}

/// `( column type …, PRIMARY KEY (…), CHECK (…) )`, or nothing.
fn parse_columns(parser: &mut Parser<'_>, relation: &RelationName, context: &Context<'_>) -> Result<Columns, ParserError> {
    let open = parser.peek_token_ref().span.start;
    if parser.peek_token_ref().token != Token::LParen {
        return Ok(Columns::default());
    }
    let (definitions, constraints) = parser.parse_columns()?;
    let mut declared = Columns::default();
    for definition in definitions {
        add_column(&mut declared, definition, relation, context)?;
    }
    for constraint in constraints {
        add_constraint(&mut declared, constraint, relation, open, context)?;
    }
    for &index in &declared.key {
        declared.columns[index].not_null = true;
    }
    Ok(declared)
}

fn add_column(
    declared: &mut Columns,
    definition: ColumnDef,
    relation: &RelationName,
    context: &Context<'_>,
) -> Result<(), ParserError> {
    let place = definition.name.span.start;
    let name = fold(&definition.name);
    if declared.columns.iter().any(|column| column.name == name) {
        return error_at(format!("column {name} is declared twice"), place);
    }
    let data_type = arrow_type(&definition.data_type).or_else(|message| error_at(message, place))?;
    let mut column = Column {
        name,
        data_type,
        sql_type: definition.data_type.to_string(),
        not_null: false,
        default: None,
        comment: None,
        position: context.position.at(place),
    };
    for option in definition.options {
        match option.option {
            ColumnOption::Null | ColumnOption::ForeignKey(_) => {}
            ColumnOption::Comment(text) => column.comment = Some(text),
            ColumnOption::NotNull => column.not_null = true,
            ColumnOption::Default(value) => column.default = Some(value.to_string()),
            ColumnOption::PrimaryKey(_) if declared.key.is_empty() => declared.key.push(declared.columns.len()),
            ColumnOption::PrimaryKey(_) => {
                return error_at("there are two primary keys: write PRIMARY KEY (a, b) for one of several columns", place);
            }
            ColumnOption::Check(check) => declared.checks.push(Check {
                name: option.name.as_ref().map_or_else(|| format!("{}_{}_check", relation.name, column.name), fold),
                condition: check.expr.to_string(),
                position: context.position.at(place),
            }),
            other => return error_at(format!("column {}: {other} is not supported", column.name), place),
        }
    }
    declared.columns.push(column);
    Ok(())
}

fn add_constraint(
    declared: &mut Columns,
    constraint: TableConstraint,
    relation: &RelationName,
    open: Location,
    context: &Context<'_>,
) -> Result<(), ParserError> {
    match constraint {
        TableConstraint::PrimaryKey(_) if !declared.key.is_empty() => error_at("there are two primary keys", open),
        TableConstraint::PrimaryKey(key) => {
            for part in &key.columns {
                let ast::Expr::Identifier(ident) = &part.column.expr else {
                    return error_at(format!("{} is not a column", part.column.expr), open);
                };
                let name = fold(ident);
                let Some(index) = declared.columns.iter().position(|column| column.name == name) else {
                    return error_at(format!("column {name} of the primary key is not declared"), ident.span.start);
                };
                declared.key.push(index);
            }
            Ok(())
        }
        TableConstraint::Check(check) => {
            let number = declared.checks.len();
            let suffix = if number == 0 { String::new() } else { number.to_string() };
            declared.checks.push(Check {
                name: check.name.as_ref().map_or_else(|| format!("{}_check{suffix}", relation.name), fold),
                condition: check.expr.to_string(),
                position: context.position.at(open),
            });
            Ok(())
        }
        // References are checked by views (quality checks), not at the door: the two sides arrive in any order.
        TableConstraint::ForeignKey(_) => Ok(()),
        other => error_at(format!("{other} is not supported"), open),
    }
}

fn place_of(context: &Context<'_>) -> Location {
    Location { line: context.position.line, column: context.position.column }
}
