//! Random queries as views, under random histories: after every tick each equals DataFusion's batch answer to the same text.
//!
//! A query is built from a list of numbers that proptest makes, and shrinks: fewer and smaller numbers are smaller queries. Whatever has an order gets one
//! that leaves no ties but between equal rows, since a tie may fall either way. What the planner refuses is counted, and must be the exception.
//! What DataFusion cannot answer in batch is counted, too. LIVELAKE_PROOF_CASES sets how many histories are tried, with several queries each.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicUsize, Ordering};

use proptest::prelude::*;
use proptest::test_runner::RngSeed;

use crate::histories::{Lake, tick};
use crate::incremental::cases;

/// Queries to a history.
const QUERIES: usize = 6;

static PLANNED: AtomicUsize = AtomicUsize::new(0);
static REFUSED: AtomicUsize = AtomicUsize::new(0);
/// Answers that there is nothing to compare with.
static UNANSWERED: AtomicUsize = AtomicUsize::new(0);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Type {
    Integer,
    Text,
    Decimal,
    Time,
}

/// A query and its columns, which no other part of the whole query has by these names.
#[derive(Clone, Debug)]
struct Query {
    sql: String,
    columns: Vec<(String, Type)>,
}

impl Query {
    fn list(&self) -> String {
        self.columns.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>().join(", ")
    }

    fn of(&self, wanted: Type) -> Vec<&str> {
        self.columns.iter().filter(|(_, has)| *has == wanted).map(|(name, _)| name.as_str()).collect()
    }
}

/// Decisions, taken from a list of numbers; when it ends all are the first one.
struct Choices<'a> {
    numbers: &'a [u8],
    at: usize,
    names: usize,
}

impl Choices<'_> {
    fn pick(&mut self, of: usize) -> usize {
        let number = self.numbers.get(self.at).copied().unwrap_or(0);
        self.at += 1;
        usize::from(number) % of.max(1)
    }

    fn one<'v, T>(&mut self, of: &'v [T]) -> Option<&'v T> {
        if of.is_empty() { None } else { of.get(self.pick(of.len())) }
    }

    fn name(&mut self) -> String {
        self.names += 1;
        format!("c{}", self.names)
    }

    fn named(&mut self, from: &str, columns: &[(&str, Type)]) -> Query {
        let columns: Vec<(String, String, Type)> =
            columns.iter().map(|(column, data_type)| (column.to_string(), self.name(), *data_type)).collect();
        let list = columns.iter().map(|(column, name, _)| format!("{column} AS {name}")).collect::<Vec<_>>().join(", ");
        Query {
            sql: format!("SELECT {list} FROM {from}"),
            columns: columns.into_iter().map(|(_, name, data_type)| (name, data_type)).collect(),
        }
    }

    fn base(&mut self) -> Query {
        match self.pick(3) {
            0 => self.named(
                "trips",
                &[
                    ("id", Type::Integer),
                    ("zone", Type::Integer),
                    ("vendor", Type::Text),
                    ("fare", Type::Decimal),
                    ("at", Type::Time),
                ],
            ),
            1 => self.named("zones", &[("zone", Type::Integer), ("name", Type::Text), ("weight", Type::Integer)]),
            _ => self.named("notes", &[("zone", Type::Integer), ("note", Type::Text)]),
        }
    }

    /// A condition over columns, of which there may be others outside.
    fn condition(&mut self, query: &Query, depth: usize) -> String {
        let (numbers, texts) = (query.of(Type::Integer), query.of(Type::Text));
        let number = self.one(&numbers).copied();
        let text = self.one(&texts).copied();
        match (self.pick(if depth == 0 { 7 } else { 10 }), number, text) {
            (0 | 1, Some(number), _) => {
                let op = self.one(&["=", "<", ">=", "<>"]).copied().unwrap_or("=");
                format!("{number} {op} {}", self.pick(5))
            }
            (2, Some(number), _) => {
                let other = self.one(&numbers).copied().unwrap_or(number);
                format!("{number} <= {other} + {}", self.pick(3))
            }
            (3, _, Some(text)) => format!("{text} = 'a'"),
            (4, _, Some(text)) => format!("{text} LIKE '%b%' OR {text} > 'B'"),
            (5, _, _) => {
                let column = &query.columns[self.pick(query.columns.len())].0;
                format!("{column} IS {}NULL", if self.pick(2) == 0 { "NOT " } else { "" })
            }
            (6, Some(number), _) => format!("{number} IN (0, 2)"),
            (7, _, _) => format!("({}) AND ({})", self.condition(query, depth - 1), self.condition(query, depth - 1)),
            (8, _, _) => format!("({}) OR ({})", self.condition(query, depth - 1), self.condition(query, depth - 1)),
            (9, _, _) => format!("NOT ({})", self.condition(query, depth - 1)),
            _ => "true".to_owned(),
        }
    }

    /// A number or text computed from columns.
    fn computed(&mut self, query: &Query) -> (String, Type) {
        let (numbers, texts) = (query.of(Type::Integer), query.of(Type::Text));
        let (number, text) = (self.one(&numbers).copied(), self.one(&texts).copied());
        match (self.pick(5), number, text) {
            (0, Some(number), _) => (format!("{number} % 3"), Type::Integer),
            (1, Some(number), _) => (format!("coalesce({number}, -1)"), Type::Integer),
            (2, _, Some(text)) => (format!("upper({text}) || '.'"), Type::Text),
            (3, Some(number), _) => {
                (format!("CASE WHEN {number} > 1 THEN 'many' WHEN {number} IS NULL THEN NULL ELSE 'few' END"), Type::Text)
            }
            (_, _, Some(text)) => (format!("CAST(length({text}) AS INTEGER)"), Type::Integer),
            (_, Some(number), _) => (format!("-{number}"), Type::Integer),
            _ => ("'x'".to_owned(), Type::Text),
        }
    }

    fn aggregate(&mut self, query: &Query) -> (String, Type) {
        let (numbers, texts, decimals) = (query.of(Type::Integer), query.of(Type::Text), query.of(Type::Decimal));
        let column = query.columns[self.pick(query.columns.len())].clone();
        let number = self.one(&numbers).copied();
        let (call, data_type) = match (self.pick(9), number, self.one(&texts), self.one(&decimals)) {
            (1, ..) => (format!("count({})", column.0), Type::Integer),
            (2, ..) => (format!("count(DISTINCT {})", column.0), Type::Integer),
            (3, ..) => (format!("min({})", column.0), column.1),
            (4, ..) => (format!("max({})", column.0), column.1),
            (5, Some(number), ..) => (format!("sum({number} % 7)"), Type::Integer),
            (6, _, _, Some(decimal)) => (format!("sum(CAST({decimal} AS DECIMAL(10, 2)))"), Type::Decimal),
            (7, _, Some(text), _) => return (format!("string_agg({text}, ',' ORDER BY {text})"), Type::Text),
            (8, Some(number), ..) => (format!("median(CAST({number} AS DOUBLE PRECISION)) > 1"), Type::Text),
            _ => ("count(*)".to_owned(), Type::Integer),
        };
        if call.starts_with("median") {
            return (format!("CASE WHEN {call} THEN 'high' ELSE 'low' END"), Type::Text);
        }
        let filter = if self.pick(4) == 3 { format!(" FILTER (WHERE {})", self.condition(query, 0)) } else { String::new() };
        (format!("{call}{filter}"), data_type)
    }

    fn window(&mut self, query: &Query) -> (String, Type) {
        let partition = query.columns[self.pick(query.columns.len())].0.clone();
        let order = query.list();
        let number = query.of(Type::Integer).first().copied().unwrap_or("1").to_owned();
        let column = query.columns[self.pick(query.columns.len())].clone();
        let over = match self.pick(3) {
            0 => format!("(PARTITION BY {partition} ORDER BY {order})"),
            1 => format!("(ORDER BY {order})"),
            _ => format!("(PARTITION BY {partition} ORDER BY {order} ROWS BETWEEN 1 PRECEDING AND 1 FOLLOWING)"),
        };
        match self.pick(7) {
            0 => (format!("row_number() OVER {over}"), Type::Integer),
            1 => (format!("dense_rank() OVER {over}"), Type::Integer),
            2 => (format!("lag({}) OVER {over}", column.0), column.1),
            3 => (format!("lead({}, 2) OVER {over}", column.0), column.1),
            4 => (format!("count({}) OVER {over}", column.0), Type::Integer),
            5 => (format!("sum({number} % 7) OVER {over}"), Type::Integer),
            _ => (format!("first_value({}) OVER {over}", column.0), column.1),
        }
    }

    /// Columns of one type on both sides to compare.
    fn pair(&mut self, left: &Query, right: &Query) -> (String, String) {
        let wanted = if self.pick(3) == 2 { Type::Text } else { Type::Integer };
        let pick = |choices: &mut Choices<'_>, query: &Query| choices.one(&query.of(wanted)).map(|name| (*name).to_owned());
        match (pick(self, left), pick(self, right)) {
            (Some(left), Some(right)) => (left, right),
            _ => ("1".to_owned(), "1".to_owned()),
        }
    }

    fn query(&mut self, depth: usize) -> Query {
        if depth == 0 {
            return self.base();
        }
        match self.pick(14) {
            0 => self.base(),
            1 => {
                let query = self.query(depth - 1);
                let condition = self.condition(&query, 1);
                Query { sql: format!("SELECT * FROM ({}) q WHERE {condition}", query.sql), columns: query.columns }
            }
            2 => {
                let query = self.query(depth - 1);
                let (expr, data_type) = self.computed(&query);
                let name = self.name();
                let sql = format!("SELECT *, {expr} AS {name} FROM ({}) q", query.sql);
                Query { sql, columns: query.columns.into_iter().chain([(name, data_type)]).collect() }
            }
            3 | 4 => {
                let (left, right) = (self.query(depth - 1), self.query(depth - 1));
                let (a, b) = self.pair(&left, &right);
                let kind = self.one(&["JOIN", "LEFT JOIN", "RIGHT JOIN", "FULL JOIN"]).copied().unwrap_or("JOIN");
                let mut on = format!("{a} = {b}");
                let columns: Vec<_> = left.columns.iter().chain(&right.columns).cloned().collect();
                if kind != "FULL JOIN" && self.pick(3) == 2 {
                    let both = Query { sql: String::new(), columns: columns.clone() };
                    let _ = write!(on, " AND ({})", self.condition(&both, 0));
                }
                Query { sql: format!("SELECT * FROM ({}) l {kind} ({}) r ON {on}", left.sql, right.sql), columns }
            }
            5 | 6 => {
                let query = self.query(depth - 1);
                let key = query.columns[self.pick(query.columns.len())].clone();
                let renamed = self.name();
                let mut columns = vec![(renamed.clone(), key.1)];
                let mut items = format!("{} AS {renamed}", key.0);
                for _ in 0..=self.pick(3) {
                    let (call, data_type) = self.aggregate(&query);
                    let name = self.name();
                    let _ = write!(items, ", {call} AS {name}");
                    columns.push((name, data_type));
                }
                let having = if self.pick(4) == 3 { " HAVING count(*) > 1" } else { "" };
                Query { sql: format!("SELECT {items} FROM ({}) q GROUP BY {}{having}", query.sql, key.0), columns }
            }
            7 => {
                let query = self.query(depth - 1);
                let keep = 1 + self.pick(query.columns.len());
                let columns: Vec<_> = query.columns.iter().take(keep).cloned().collect();
                let list = columns.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>().join(", ");
                Query { sql: format!("SELECT DISTINCT {list} FROM ({}) q", query.sql), columns }
            }
            8 => {
                let (left, right) = (self.query(depth - 1), self.query(depth - 1));
                let (a, b) = self.pair(&left, &right);
                let data_type = if left.of(Type::Text).contains(&a.as_str()) { Type::Text } else { Type::Integer };
                let name = self.name();
                let cast = if data_type == Type::Text { "TEXT" } else { "BIGINT" };
                let set = self
                    .one(&["UNION ALL", "UNION", "EXCEPT", "INTERSECT", "EXCEPT ALL", "INTERSECT ALL"])
                    .copied()
                    .unwrap_or("UNION");
                let sql = format!(
                    "SELECT CAST({a} AS {cast}) AS {name} FROM ({}) l {set} SELECT CAST({b} AS {cast}) FROM ({}) r",
                    left.sql, right.sql
                );
                Query { sql, columns: vec![(name, data_type)] }
            }
            9 => {
                let (left, right) = (self.query(depth - 1), self.query(depth - 1));
                let (a, b) = self.pair(&left, &right);
                let condition = self.condition(&left, 0);
                let test = match self.pick(5) {
                    0 => format!("EXISTS (SELECT 1 FROM ({}) r WHERE {b} = {a})", right.sql),
                    1 => format!("NOT EXISTS (SELECT 1 FROM ({}) r WHERE {b} = {a})", right.sql),
                    2 => format!("{a} IN (SELECT {b} FROM ({}) r)", right.sql),
                    3 => format!("{a} NOT IN (SELECT {b} FROM ({}) r)", right.sql),
                    _ => format!("{a} > ALL (SELECT {b} FROM ({}) r)", right.sql),
                };
                let sql = match self.pick(3) {
                    0 => format!("SELECT * FROM ({}) l WHERE {test}", left.sql),
                    1 => format!("SELECT * FROM ({}) l WHERE ({condition}) OR {test}", left.sql),
                    _ => format!("SELECT * FROM ({}) l WHERE NOT ({test}) AND ({condition})", left.sql),
                };
                Query { sql, columns: left.columns }
            }
            10 => {
                let (left, right) = (self.query(depth - 1), self.query(depth - 1));
                let (a, b) = self.pair(&left, &right);
                let name = self.name();
                let sql =
                    format!("SELECT *, (SELECT count(*) FROM ({}) r WHERE {b} = {a}) AS {name} FROM ({}) l", right.sql, left.sql);
                Query { sql, columns: left.columns.into_iter().chain([(name, Type::Integer)]).collect() }
            }
            11 => {
                let query = self.query(depth - 1);
                let (call, data_type) = self.window(&query);
                let name = self.name();
                let sql = format!("SELECT *, {call} AS {name} FROM ({}) q", query.sql);
                Query { sql, columns: query.columns.into_iter().chain([(name, data_type)]).collect() }
            }
            12 => {
                let query = self.query(depth - 1);
                let order = query.list();
                let (limit, offset) = (1 + self.pick(4), self.pick(3));
                let sql = match self.pick(2) {
                    0 => format!("SELECT * FROM ({}) q ORDER BY {order} LIMIT {limit} OFFSET {offset}", query.sql),
                    _ => {
                        let by = &query.columns[0].0;
                        format!("SELECT DISTINCT ON ({by}) * FROM ({}) q ORDER BY {order}", query.sql)
                    }
                };
                Query { sql, columns: query.columns }
            }
            _ => {
                let (left, right) = (self.query(depth - 1), self.query(depth - 1));
                let (a, b) = self.pair(&left, &right);
                let op = self.one(&["=", "<=", ">"]).copied().unwrap_or("=");
                let order = right.list();
                let kind = self.one(&["JOIN", "LEFT JOIN"]).copied().unwrap_or("JOIN");
                let sql = format!(
                    "SELECT * FROM ({}) l {kind} LATERAL (SELECT * FROM ({}) i WHERE {b} {op} {a} ORDER BY {order} LIMIT {}) r ON true",
                    left.sql,
                    right.sql,
                    1 + self.pick(2)
                );
                Query { sql, columns: left.columns.into_iter().chain(right.columns).collect() }
            }
        }
    }
}

/// The same histories and queries in each normal run, as DataFusion's own rare mistakes in batch would fail a change that has nothing to do with
/// them; others whenever a number of cases is asked for.
fn seed() -> RngSeed {
    if std::env::var_os("LIVELAKE_PROOF_CASES").is_some() { RngSeed::Random } else { RngSeed::Fixed(22) }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), rng_seed: seed(), ..ProptestConfig::default() })]

    #[test]
    fn every_random_query_is_its_batch_answer_after_every_tick(
        ticks in prop::collection::vec(tick(), 1..5),
        numbers in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..60), QUERIES),
        workers in 1..3usize,
        early in 0..QUERIES,
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let mut lake = Lake::new(workers);
        let queries: Vec<String> =
            numbers.iter().map(|numbers| Choices { numbers, at: 0, names: 0 }.query(3).sql).collect();
        let create = |lake: &mut Lake, range: std::ops::Range<usize>| {
            for number in range {
                match lake.create(&format!("r{number}"), &queries[number]) {
                    Ok(()) => {
                        PLANNED.fetch_add(1, Ordering::Relaxed);
                    }
                    Err(error) => {
                        REFUSED.fetch_add(1, Ordering::Relaxed);
                        if std::env::var_os("LIVELAKE_PROOF_SHOW").is_some() {
                            println!("refused: {error}\n  {}", queries[number]);
                        }
                    }
                }
            }
        };
        create(&mut lake, 0..early);
        for (at, changes) in ticks.iter().enumerate() {
            lake.push(changes);
            if at == 0 {
                create(&mut lake, early..QUERIES);
            }
            let as_of = lake.engine.advance_to((at as u64 + 1) * 120_000_000);
            UNANSWERED.fetch_add(lake.check(as_of, &runtime), Ordering::Relaxed);
        }
        lake.engine.shutdown();
        let (planned, refused) = (PLANNED.load(Ordering::Relaxed), REFUSED.load(Ordering::Relaxed));
        let unanswered = UNANSWERED.load(Ordering::Relaxed);
        prop_assert!(unanswered * 20 <= planned + 40, "{unanswered} answers to {planned} queries could not be compared");
        prop_assert!(refused * 4 <= planned + 40, "{refused} of {} random queries were refused", planned + refused);
    }
}
