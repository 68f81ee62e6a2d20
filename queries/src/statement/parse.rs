//! From text to statements: split at semicolons, then each by what it begins with.

use std::sync::Arc;

use datafusion::sql::sqlparser::ast;
use datafusion::sql::sqlparser::dialect::PostgreSqlDialect;
use datafusion::sql::sqlparser::keywords::Keyword;
use datafusion::sql::sqlparser::parser::{Parser, ParserError};
use datafusion::sql::sqlparser::tokenizer::{Location, Token, TokenWithSpan, Tokenizer};

use super::{SelectQuery, SessionCommand, Statement, StatementKind, function, relation, request};
use crate::error::{Position, SqlError, SqlErrorKind};
use crate::name::RelationName;

/// Reads a script: statements that end with semicolons. `file` is what errors call it.
///
/// # Errors
/// All statements that don't parse, each with its place; the others are not returned then.
pub fn parse_script(text: &str, file: Option<&str>) -> Result<Vec<Statement>, Vec<SqlError>> {
    let start = Position { file: file.map(Arc::from), line: 1, column: 1 };
    let tokens = tokenize(text).map_err(|error| vec![SqlError::from_tokenizer(error, &start)])?;
    let lines = LineIndex::new(text);
    let mut statements = Vec::new();
    let mut errors = Vec::new();
    for tokens in split(&tokens) {
        match parse_tokens(text, &lines, tokens, &start) {
            Ok(statement) => statements.push(statement),
            Err(error) => errors.push(error),
        }
    }
    if errors.is_empty() { Ok(statements) } else { Err(errors) }
}

/// Reads exactly one statement; a semicolon may follow.
///
/// # Errors
/// If it does not parse, is empty, or more follows.
pub fn parse_statement(text: &str) -> Result<Statement, SqlError> {
    let start = Position { file: None, line: 1, column: 1 };
    let mut statements = parse_script(text, None).map_err(|errors| first(errors, &start))?;
    match statements.len() {
        1 => Ok(statements.remove(0)),
        0 => Err(SqlError::new(SqlErrorKind::Syntax, start, "there is no statement")),
        _ => {
            let place = statements.swap_remove(1).position;
            Err(SqlError::new(SqlErrorKind::Syntax, place, "expected one statement, found another after it"))
        }
    }
}

/// What the statement readers need besides the tokens.
pub(super) struct Context<'a> {
    /// Where the statement begins.
    pub(super) position: &'a Position,
    /// The whole text, to quote from.
    pub(super) text: &'a str,
    pub(super) lines: &'a LineIndex,
}

impl Context<'_> {
    /// The text from one token to before another.
    pub(super) fn between(&self, from: Location, to: Location) -> &str {
        self.text[self.lines.offset(self.text, from)..self.lines.offset(self.text, to)].trim()
    }
}

/// Where the lines of a text begin, to turn places into offsets.
pub(super) struct LineIndex(Vec<usize>);

impl LineIndex {
    fn new(text: &str) -> LineIndex {
        let ends = text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n').map(|(at, _)| at + 1);
        LineIndex(std::iter::once(0).chain(ends).collect())
    }

    fn offset(&self, text: &str, place: Location) -> usize {
        let line = (place.line as usize).saturating_sub(1).min(self.0.len() - 1);
        let start = self.0[line];
        let columns = (place.column as usize).saturating_sub(1);
        start + text[start..].char_indices().nth(columns).map_or(text.len() - start, |(at, _)| at)
    }
}

pub(super) fn error_at<T>(message: impl Into<String>, place: Location) -> Result<T, ParserError> {
    Err(ParserError::ParserError(format!("{} at Line: {}, Column: {}", message.into(), place.line, place.column)))
}

/// Whether the token `ahead` of the parser is this unquoted word (keyword of sqlparser's or not).
pub(super) fn peek_word(parser: &Parser<'_>, ahead: usize, word: &str) -> bool {
    is_word(&parser.peek_nth_token_ref(ahead).token, word)
}

/// Takes the word if it is next.
pub(super) fn take_word(parser: &mut Parser<'_>, word: &str) -> bool {
    let there = peek_word(parser, 0, word);
    if there {
        parser.advance_token();
    }
    there
}

/// Takes the words if they are all next.
pub(super) fn take_words(parser: &mut Parser<'_>, words: &[&str]) -> bool {
    let there = words.iter().enumerate().all(|(ahead, word)| peek_word(parser, ahead, word));
    if there {
        words.iter().for_each(|_| parser.advance_token());
    }
    there
}

pub(super) fn expect_word(parser: &mut Parser<'_>, word: &str) -> Result<(), ParserError> {
    if take_word(parser, word) { Ok(()) } else { parser.expected(word, parser.peek_token()) }
}

pub(super) fn parse_name(parser: &mut Parser<'_>, context: &Context<'_>) -> Result<RelationName, ParserError> {
    let place = parser.peek_token().span.start;
    let name = parser.parse_object_name(false)?;
    RelationName::from_ast(&name, context.position).or_else(|error| error_at(error.message, place))
}

/// A query that may end in `AS OF t`; the parser stands at its beginning, its tokens end with it.
pub(super) fn parse_select(parser: &mut Parser<'_>, tokens: &[TokenWithSpan]) -> Result<SelectQuery, ParserError> {
    let (tokens, as_of) = request::split_as_of(tokens)?;
    let mut inner = sub_parser(tokens);
    let query = inner.parse_query()?;
    expect_end(&inner)?;
    while parser.peek_token_ref().token != Token::EOF {
        parser.advance_token();
    }
    Ok(SelectQuery { query, as_of })
}

/// A parser of some of the tokens.
pub(super) fn sub_parser(tokens: &[TokenWithSpan]) -> Parser<'static> {
    Parser::new(&PostgreSqlDialect {}).with_tokens_with_locations(tokens.to_vec())
}

pub(super) fn expect_end(parser: &Parser<'_>) -> Result<(), ParserError> {
    match parser.peek_token_ref() {
        token if token.token == Token::EOF => Ok(()),
        token => parser.expected("the end of the statement", token.clone()),
    }
}

fn first(mut errors: Vec<SqlError>, start: &Position) -> SqlError {
    if errors.is_empty() { SqlError::new(SqlErrorKind::Syntax, start.clone(), "there is no statement") } else { errors.remove(0) }
}

fn tokenize(text: &str) -> Result<Vec<TokenWithSpan>, datafusion::sql::sqlparser::tokenizer::TokenizerError> {
    Tokenizer::new(&PostgreSqlDialect {}, text).tokenize_with_location()
}

/// The statements' tokens, without the semicolons, white space at the ends, and empty statements.
fn split(tokens: &[TokenWithSpan]) -> impl Iterator<Item = &[TokenWithSpan]> {
    tokens.split(|token| token.token == Token::SemiColon).filter_map(|part| {
        let solid = |token: &TokenWithSpan| !matches!(token.token, Token::Whitespace(_) | Token::EOF);
        let first = part.iter().position(solid)?;
        let last = part.iter().rposition(solid)?;
        Some(&part[first..=last])
    })
}

fn parse_tokens(text: &str, lines: &LineIndex, tokens: &[TokenWithSpan], start: &Position) -> Result<Statement, SqlError> {
    let begin = tokens.first().map_or(Location { line: 1, column: 1 }, |token| token.span.start);
    let end = tokens.last().map_or(begin, |token| token.span.end);
    let position = start.at(begin);
    let context = Context { position: &position, text, lines };
    let kind = parse_kind(tokens, &context).map_err(|error| {
        let error = SqlError::from_parser(error, &position);
        at_statement_end(error, end)
    })?;
    let text = context.between(begin, end).to_string();
    Ok(Statement { kind, text, position })
}

/// An error at the end of the text has no place of its own in sqlparser (0:0): it is where the statement ends.
fn at_statement_end(mut error: SqlError, end: Location) -> SqlError {
    if error.position.line == 0 || error.message.contains("found EOF") {
        error.position = error.position.at(end);
    }
    error.message = error.message.replace("found EOF", "found the end of the statement");
    error
}

fn parse_kind(tokens: &[TokenWithSpan], context: &Context<'_>) -> Result<StatementKind, ParserError> {
    let mut parser = sub_parser(tokens);
    let parser = &mut parser;
    let kind = if let Some(kind) = function::parse(parser)? {
        kind
    } else if let Some(kind) = relation::parse(parser, context)? {
        kind
    } else if let Some(kind) = request::parse(parser, tokens, context)? {
        kind
    } else if begins_query(&parser.peek_token_ref().token) {
        StatementKind::Query(parse_select(parser, tokens)?)
    } else {
        parse_other(parser, context)?
    };
    expect_end(parser)?;
    Ok(kind)
}

fn begins_query(token: &Token) -> bool {
    let keywords = [Keyword::SELECT, Keyword::WITH, Keyword::VALUES, Keyword::FROM, Keyword::TABLE];
    match token {
        Token::LParen => true,
        Token::Word(word) => keywords.contains(&word.keyword),
        _ => false,
    }
}

/// Statements that sqlparser knows whole.
fn parse_other(parser: &mut Parser<'_>, context: &Context<'_>) -> Result<StatementKind, ParserError> {
    let place = parser.peek_token_ref().span.start;
    let statement = parser.parse_statement()?;
    Ok(match statement {
        ast::Statement::Insert(insert) => StatementKind::Insert(Box::new(insert)),
        ast::Statement::Update(update) => StatementKind::Update(Box::new(update)),
        ast::Statement::Delete(delete) => StatementKind::Delete(Box::new(delete)),
        ast::Statement::Query(query) => StatementKind::Query(SelectQuery { query, as_of: None }),
        ast::Statement::Truncate(truncate) => {
            let names = truncate.table_names.iter().map(|target| RelationName::from_ast(&target.name, context.position));
            StatementKind::Truncate(names.collect::<Result<_, _>>().or_else(|error| error_at(error.message, place))?)
        }
        ast::Statement::CreateSchema { schema_name, .. } => StatementKind::CreateSchema(schema_name.to_string()),
        ast::Statement::StartTransaction { .. } => StatementKind::Session(SessionCommand::Begin),
        ast::Statement::Commit { .. } => StatementKind::Session(SessionCommand::Commit),
        ast::Statement::Rollback { .. } => StatementKind::Session(SessionCommand::Rollback),
        ast::Statement::Set(set) => StatementKind::Session(SessionCommand::Set(set.to_string())),
        ast::Statement::Reset(_) => StatementKind::Session(SessionCommand::Other("RESET".into())),
        ast::Statement::Discard { .. } => StatementKind::Session(SessionCommand::Other("DISCARD ALL".into())),
        ast::Statement::Deallocate { .. } => StatementKind::Session(SessionCommand::Other("DEALLOCATE".into())),
        ast::Statement::Savepoint { .. } => StatementKind::Session(SessionCommand::Other("SAVEPOINT".into())),
        ast::Statement::ReleaseSavepoint { .. } => StatementKind::Session(SessionCommand::Other("RELEASE".into())),
        ast::Statement::Analyze(_) | ast::Statement::Vacuum(_) => StatementKind::Session(SessionCommand::Other("VACUUM".into())),
        ast::Statement::LISTEN { .. } => StatementKind::Session(SessionCommand::Other("LISTEN".into())),
        ast::Statement::UNLISTEN { .. } => StatementKind::Session(SessionCommand::Other("UNLISTEN".into())),
        other => {
            let text = other.to_string();
            let words: Vec<&str> = text.split_whitespace().take(2).collect();
            return error_at(format!("{} is not a statement that livelake knows", words.join(" ")), place);
        }
    })
}

pub(super) fn is_word(token: &Token, word: &str) -> bool {
    matches!(token, Token::Word(found) if found.quote_style.is_none() && found.value.eq_ignore_ascii_case(word))
}
