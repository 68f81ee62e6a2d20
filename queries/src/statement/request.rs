//! SUBSCRIBE, SHOW, EXPLAIN, VERIFY, FLUSH, VACUUM, COPY, and `AS OF`.

use chrono::Utc;
use datafusion::sql::sqlparser::ast;
use datafusion::sql::sqlparser::keywords::Keyword;
use datafusion::sql::sqlparser::parser::{Parser, ParserError};
use datafusion::sql::sqlparser::tokenizer::{Token, TokenWithSpan};

use super::parse::{
    Context, error_at, expect_word, is_word, parse_name, parse_select, peek_word, sub_parser, take_word, take_words,
};
use super::{
    AsOf, Copy, CopyDirection, CopyFormat, CopyTarget, CopyToFile, Explain, ExplainTarget, Options, RelationKind, Show,
    StatementKind, Subscribe, SubscribeTarget, relation,
};
use crate::name::fold;

pub(super) fn parse(
    parser: &mut Parser<'_>,
    tokens: &[TokenWithSpan],
    context: &Context<'_>,
) -> Result<Option<StatementKind>, ParserError> {
    if peek_word(parser, 0, "SUBSCRIBE") {
        return parse_subscribe(parser, context).map(|subscribe| Some(StatementKind::Subscribe(subscribe)));
    }
    if take_word(parser, "COPY") {
        return parse_copy(parser, tokens, context).map(Some);
    }
    if take_words(parser, &["SHOW", "EPOCHS"]) {
        let limit = if take_word(parser, "LIMIT") { Some(parser.parse_literal_uint()?) } else { None };
        return Ok(Some(StatementKind::ShowEpochs(limit)));
    }
    if take_word(parser, "SHOW") {
        return parse_show(parser, context).map(Some);
    }
    if peek_word(parser, 0, "EXPLAIN") || peek_word(parser, 0, "DESCRIBE") {
        return parse_explain(parser, tokens, context).map(Some);
    }
    if take_words(parser, &["VERIFY", "MATERIALIZED", "VIEW"]) || take_words(parser, &["VERIFY", "VIEW"]) {
        return Ok(Some(StatementKind::Verify(parse_name(parser, context)?)));
    }
    if take_word(parser, "FLUSH") {
        return Ok(Some(StatementKind::Flush));
    }
    if take_word(parser, "VACUUM") {
        let table = if parser.peek_token_ref().token == Token::EOF { None } else { Some(parse_name(parser, context)?) };
        return Ok(Some(StatementKind::Vacuum(table)));
    }
    Ok(None)
}

/// Takes `AS OF t` off the end, if it is there outside of parentheses.
pub(super) fn split_as_of(tokens: &[TokenWithSpan]) -> Result<(&[TokenWithSpan], Option<AsOf>), ParserError> {
    let solid: Vec<usize> =
        (0..tokens.len()).filter(|at| !matches!(tokens[*at].token, Token::Whitespace(_) | Token::EOF)).collect();
    let mut depth = 0_i32;
    let mut found = None;
    for pair in solid.windows(2) {
        match tokens[pair[0]].token {
            Token::LParen => depth += 1,
            Token::RParen => depth -= 1,
            _ => {}
        }
        if depth == 0 && is_word(&tokens[pair[0]].token, "AS") && is_word(&tokens[pair[1]].token, "OF") {
            found = Some((pair[0], pair[1]));
        }
    }
    let Some((begin, of)) = found else { return Ok((tokens, None)) };
    // `SELECT x AS of FROM …` has an alias called "of": a timestamp is a literal and nothing follows it.
    let mut parser = sub_parser(&tokens[of + 1..]);
    match parse_as_of(&mut parser) {
        Ok(as_of) if parser.peek_token_ref().token == Token::EOF => Ok((&tokens[..begin], Some(as_of))),
        Err(error) if solid.last().is_some_and(|last| *last > of) && !is_alias(&tokens[of + 1..]) => Err(error),
        _ => Ok((tokens, None)),
    }
}

/// Whether what follows `AS of` shows that "of" is an alias: anything but a value.
fn is_alias(rest: &[TokenWithSpan]) -> bool {
    let next = rest.iter().find(|token| !matches!(token.token, Token::Whitespace(_)));
    match next.map(|token| &token.token) {
        Some(Token::SingleQuotedString(_) | Token::Number(..) | Token::Placeholder(_)) => false,
        Some(Token::Word(word)) if word.value.eq_ignore_ascii_case("EPOCH") => {
            let number = rest.iter().filter(|token| !matches!(token.token, Token::Whitespace(_))).nth(1);
            !number.is_some_and(|token| matches!(token.token, Token::Number(..)))
        }
        Some(Token::Word(word)) => word.keyword != Keyword::NoKeyword,
        _ => true,
    }
}

/// A query's `AS OF` also takes `EPOCH n`.
fn parse_as_of(parser: &mut Parser<'_>) -> Result<AsOf, ParserError> {
    if peek_word(parser, 0, "EPOCH") && matches!(parser.peek_nth_token_ref(1).token, Token::Number(..)) {
        parser.advance_token();
        return parser.parse_literal_uint().map(AsOf::Epoch);
    }
    parse_timestamp(parser).map(AsOf::Timestamp)
}

/// `AS OF` takes microseconds since 1970 UTC, or a time in quotes (`'2026-01-31 12:00:00'`, UTC unless it says otherwise).
fn parse_timestamp(parser: &mut Parser<'_>) -> Result<u64, ParserError> {
    take_word(parser, "TIMESTAMP");
    take_word(parser, "TIMESTAMPTZ");
    let token = parser.next_token();
    let place = token.span.start;
    match &token.token {
        Token::Number(digits, _) => digits.parse().or_else(|_| error_at("AS OF takes whole microseconds since 1970 UTC", place)),
        Token::SingleQuotedString(text) => match text.trim().parse::<u64>() {
            Ok(microseconds) => Ok(microseconds),
            Err(_) => match arrow::compute::kernels::cast_utils::string_to_datetime(&Utc, text) {
                Ok(time) if time.timestamp_micros() >= 0 => Ok(time.timestamp_micros() as u64),
                _ => error_at(format!("'{text}' is not a time"), place),
            },
        },
        _ => parser.expected("microseconds since 1970 or a time in quotes after AS OF", token),
    }
}

/// The tokens between the parenthesis that the parser stands at and the one that closes it; the parser goes past both.
fn parenthesised(parser: &mut Parser<'_>) -> Result<Vec<TokenWithSpan>, ParserError> {
    parser.expect_token(&Token::LParen)?;
    let mut depth = 1;
    let mut inner = Vec::new();
    loop {
        let token = parser.next_token();
        match token.token {
            Token::LParen => depth += 1,
            Token::RParen => depth -= 1,
            Token::EOF => return parser.expected(")", token),
            _ => {}
        }
        if depth == 0 {
            return Ok(inner);
        }
        inner.push(token);
    }
}

fn parse_subscribe(parser: &mut Parser<'_>, context: &Context<'_>) -> Result<Subscribe, ParserError> {
    expect_word(parser, "SUBSCRIBE")?;
    take_word(parser, "TO");
    let target = if parser.peek_token_ref().token == Token::LParen {
        let inner = parenthesised(parser)?;
        SubscribeTarget::Query(parse_select(&mut sub_parser(&inner), &inner)?.query)
    } else {
        SubscribeTarget::Relation(parse_name(parser, context)?)
    };
    let mut subscribe = Subscribe { target, upsert_key: None, snapshot: true, progress: true, as_of: None };
    loop {
        if take_words(parser, &["ENVELOPE", "UPSERT"]) {
            subscribe.upsert_key = Some(parse_upsert_key(parser)?);
        } else if parser.peek_keyword(Keyword::WITH) {
            let place = parser.peek_token_ref().span.start;
            let options = Options::parse(parser, context.position)?;
            let read = |name| options.boolean(name).or_else(|error| error_at(error.message, place));
            options.check_known(&["snapshot", "progress"]).or_else(|error| error_at(error.message, place))?;
            subscribe.snapshot = read("snapshot")?.unwrap_or(subscribe.snapshot);
            subscribe.progress = read("progress")?.unwrap_or(subscribe.progress);
        } else if take_words(parser, &["AS", "OF"]) {
            subscribe.as_of = Some(parse_timestamp(parser)?);
        } else {
            return Ok(subscribe);
        }
    }
}

fn parse_upsert_key(parser: &mut Parser<'_>) -> Result<Vec<String>, ParserError> {
    if parser.peek_token_ref().token != Token::LParen {
        return Ok(Vec::new());
    }
    parser.expect_token(&Token::LParen)?;
    expect_word(parser, "KEY")?;
    parser.expect_token(&Token::LParen)?;
    let columns = parser.parse_comma_separated(Parser::parse_identifier)?;
    parser.expect_token(&Token::RParen)?;
    parser.expect_token(&Token::RParen)?;
    Ok(columns.iter().map(fold).collect())
}

fn parse_copy(parser: &mut Parser<'_>, tokens: &[TokenWithSpan], context: &Context<'_>) -> Result<StatementKind, ParserError> {
    let place = parser.peek_token_ref().span.start;
    let target = if parser.peek_token_ref().token == Token::LParen {
        let inner = parenthesised(parser)?;
        let mut inside = sub_parser(&inner);
        if peek_word(&inside, 0, "SUBSCRIBE") {
            let subscribe = parse_subscribe(&mut inside, context)?;
            super::parse::expect_end(&inside)?;
            expect_word(parser, "TO")?;
            expect_word(parser, "STDOUT")?;
            while parser.peek_token_ref().token != Token::EOF {
                parser.advance_token();
            }
            return Ok(StatementKind::CopySubscribe(subscribe));
        }
        CopyTarget::Query(parse_select(&mut inside, &inner)?)
    } else {
        let name = parse_name(parser, context)?;
        let columns = parser.parse_parenthesized_column_list(datafusion::sql::sqlparser::parser::IsOptional::Optional, false)?;
        CopyTarget::Relation(name, columns.iter().map(fold).collect())
    };
    if is_word(&parser.peek_token_ref().token, "TO") && matches!(parser.peek_nth_token_ref(1).token, Token::SingleQuotedString(_))
    {
        return parse_copy_to_file(parser, target, place);
    }
    let (direction, options) = parse_copy_rest(tokens, &target, place)?;
    while parser.peek_token_ref().token != Token::EOF {
        parser.advance_token();
    }
    copy_of(target, direction, &options, place)
}

/// `TO 'file' [[WITH] (FORMAT name)]`.
fn parse_copy_to_file(
    parser: &mut Parser<'_>,
    target: CopyTarget,
    place: datafusion::sql::sqlparser::tokenizer::Location,
) -> Result<StatementKind, ParserError> {
    expect_word(parser, "TO")?;
    let file = parser.parse_literal_string()?;
    let mut format = None;
    take_word(parser, "WITH");
    if parser.consume_token(&Token::LParen) {
        expect_word(parser, "FORMAT")?;
        let _is_written = parser.consume_token(&Token::Eq);
        let token = parser.next_token();
        format = match &token.token {
            Token::Word(word) => Some(word.value.to_lowercase()),
            Token::SingleQuotedString(text) => Some(text.to_lowercase()),
            other => return error_at(format!("FORMAT takes a name, not {other}"), token.span.start),
        };
        parser.expect_token(&Token::RParen)?;
    }
    super::parse::expect_end(parser)?;
    let query = match target {
        CopyTarget::Query(query) => query,
        CopyTarget::Relation(name, columns) => {
            let quoted: Vec<String> = columns.iter().map(|column| format!("\"{}\"", column.replace('"', "\"\""))).collect();
            let list = if quoted.is_empty() { "*".to_owned() } else { quoted.join(", ") };
            match super::parse_statement(&format!("SELECT {list} FROM {}", name.quoted())).map(|statement| statement.kind) {
                Ok(StatementKind::Query(query)) => query,
                Ok(_) => return error_at("only rows can be copied", place),
                Err(error) => return error_at(error.message, place),
            }
        }
    };
    Ok(StatementKind::CopyToFile(Box::new(CopyToFile { query, file, format })))
}

/// What follows the relation or query: read by sqlparser, as the end of a COPY of some table.
fn parse_copy_rest(
    tokens: &[TokenWithSpan],
    target: &CopyTarget,
    place: datafusion::sql::sqlparser::tokenizer::Location,
) -> Result<(CopyDirection, Vec<ast::CopyOption>), ParserError> {
    let mut depth = 0_i32;
    let direction_at = tokens.iter().position(|token| {
        match token.token {
            Token::LParen => depth += 1,
            Token::RParen => depth -= 1,
            _ => {}
        }
        depth == 0 && (is_word(&token.token, "FROM") || is_word(&token.token, "TO"))
    });
    let Some(at) = direction_at else { return error_at("expected FROM STDIN or TO STDOUT", place) };
    let mut stand_in: Vec<TokenWithSpan> = vec![TokenWithSpan::new(Token::make_word("copied", None), tokens[at].span)];
    stand_in.extend_from_slice(&tokens[at..]);
    // After FROM STDIN sqlparser wants the data, which does not come in the statement here.
    stand_in.push(TokenWithSpan::new(Token::SemiColon, tokens[tokens.len() - 1].span));
    let mut parser = sub_parser(&stand_in);
    match parser.parse_copy()? {
        ast::Statement::Copy {
            to, target: ast::CopyTarget::Stdin | ast::CopyTarget::Stdout, options, legacy_options, ..
        } => {
            if !legacy_options.is_empty() {
                return error_at("write the options of COPY in parentheses: WITH (FORMAT csv, HEADER)", place);
            }
            match (to, target) {
                (false, CopyTarget::Query(_)) => error_at("rows can be copied FROM STDIN into a table only", place),
                (true, _) => Ok((CopyDirection::Out, options)),
                (false, _) => Ok((CopyDirection::In, options)),
            }
        }
        _ => error_at("COPY goes FROM STDIN, TO STDOUT or TO 'file'; files on the server are read by a SOURCE", place),
    }
}

fn copy_of(
    target: CopyTarget,
    direction: CopyDirection,
    options: &[ast::CopyOption],
    place: datafusion::sql::sqlparser::tokenizer::Location,
) -> Result<StatementKind, ParserError> {
    let mut format = CopyFormat::Text;
    let (mut delimiter, mut header, mut null) = (None, false, None);
    for option in options {
        match option {
            ast::CopyOption::Format(name) => {
                format = match fold(name).as_str() {
                    "text" => CopyFormat::Text,
                    "csv" => CopyFormat::Csv,
                    "binary" => CopyFormat::Binary,
                    other => return error_at(format!("COPY has the formats text, csv and binary, not {other}"), place),
                }
            }
            ast::CopyOption::Delimiter(character) => delimiter = Some(*character),
            ast::CopyOption::Header(yes) => header = *yes,
            ast::CopyOption::Null(text) => null = Some(text.clone()),
            ast::CopyOption::Encoding(name) if name.replace('-', "").eq_ignore_ascii_case("utf8") => {}
            ast::CopyOption::Quote('"') | ast::CopyOption::Escape('"') | ast::CopyOption::Freeze(_) => {}
            other => return error_at(format!("the COPY option {other} is not supported"), place),
        }
    }
    let csv = format == CopyFormat::Csv;
    let delimiter = delimiter.unwrap_or(if csv { ',' } else { '\t' });
    let null = null.unwrap_or_else(|| if csv { String::new() } else { "\\N".to_string() });
    Ok(StatementKind::Copy(Copy { target, direction, format, delimiter, header, null }))
}

fn parse_show(parser: &mut Parser<'_>, context: &Context<'_>) -> Result<StatementKind, ParserError> {
    let kinds = [
        (&["SOURCES"][..], RelationKind::Source),
        (&["TABLES"], RelationKind::Table),
        (&["MATERIALIZED", "VIEWS"], RelationKind::MaterializedView),
        (&["VIEWS"], RelationKind::View),
        (&["SINKS"], RelationKind::Sink),
        (&["INDEXES"], RelationKind::Index),
    ];
    if let Some((_, kind)) = kinds.into_iter().find(|(words, _)| take_words(parser, words)) {
        return Ok(StatementKind::Show(Show::Relations(kind)));
    }
    if take_word(parser, "FUNCTIONS") {
        return Ok(StatementKind::Show(Show::Functions));
    }
    if take_word(parser, "SCHEMAS") {
        return Ok(StatementKind::Show(Show::Schemas));
    }
    if take_word(parser, "COLUMNS") {
        if !take_word(parser, "FROM") {
            expect_word(parser, "IN")?;
        }
        return Ok(StatementKind::Show(Show::Columns(parse_name(parser, context)?)));
    }
    if take_word(parser, "CREATE") {
        let words = [&["MATERIALIZED", "VIEW"][..], &["VIEW"], &["SOURCE"], &["TABLE"], &["SINK"]];
        let _ = words.into_iter().any(|words| take_words(parser, words));
        return Ok(StatementKind::Show(Show::Create(parse_name(parser, context)?)));
    }
    let mut name = Vec::new();
    while let Token::Word(word) = parser.peek_token().token {
        name.push(word.value.to_lowercase());
        parser.advance_token();
        if parser.consume_token(&Token::Period) {
            continue;
        }
    }
    if name.is_empty() {
        return parser.expected("SOURCES, TABLES, VIEWS, MATERIALIZED VIEWS, SINKS, COLUMNS FROM or CREATE", parser.peek_token());
    }
    Ok(StatementKind::ShowSetting(name.join(" ")))
}

fn parse_explain(parser: &mut Parser<'_>, tokens: &[TokenWithSpan], context: &Context<'_>) -> Result<StatementKind, ParserError> {
    if take_word(parser, "DESCRIBE") {
        return Ok(StatementKind::Show(Show::Columns(parse_name(parser, context)?)));
    }
    expect_word(parser, "EXPLAIN")?;
    let analyze = take_word(parser, "ANALYZE");
    take_word(parser, "VERBOSE");
    if take_words(parser, &["MATERIALIZED", "VIEW"]) || take_word(parser, "VIEW") {
        let target = ExplainTarget::Relation(parse_name(parser, context)?);
        return Ok(StatementKind::Explain(Explain { analyze, target }));
    }
    if let Some(StatementKind::CreateView(view)) = relation::parse(parser, context)? {
        return Ok(StatementKind::Explain(Explain { analyze, target: ExplainTarget::View(Box::new(view)) }));
    }
    let here = parser.index();
    let rest = tokens.get(here..).unwrap_or_default();
    let target = ExplainTarget::Query(parse_select(parser, rest)?);
    Ok(StatementKind::Explain(Explain { analyze, target }))
}
