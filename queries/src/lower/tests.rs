//! What queries become, as text. The expected plans are in `snapshots/`.

use livelake_dataflow::plan::Plan;

use crate::catalog::Catalog;
use crate::explain::dataflow_text;
use crate::plan::{ViewPlan, columns_read, view_plan};
use crate::statement::{RelationKind, parse_script};

/// The catalog of a script, in which everything must plan.
pub(crate) fn catalog(script: &str) -> Catalog {
    let mut catalog = Catalog::new();
    for statement in parse_script(script, Some("lake.sql")).unwrap() {
        catalog.create(&statement).unwrap_or_else(|error| panic!("{error}"));
    }
    catalog
}

pub(crate) const SOURCES: &str = "
CREATE SOURCE trips (id BIGINT PRIMARY KEY, zone INTEGER NOT NULL, at TIMESTAMP NOT NULL, fare DECIMAL(10, 2),
    distance DOUBLE PRECISION, vendor INTEGER, flag TEXT, day DATE) WITH (connector = 'files');
CREATE SOURCE zones (zone INTEGER PRIMARY KEY, borough TEXT NOT NULL) WITH (connector = 'files');
CREATE SOURCE log (at TIMESTAMPTZ, level INTEGER, message TEXT) WITH (connector = 'files');
";

/// The sources of the lakes w1 to w3, which must run.
const TAXI: &str = "
CREATE SOURCE trips (
    id BIGINT PRIMARY KEY, vendor_id INTEGER NOT NULL, pickup_datetime TIMESTAMP NOT NULL, dropoff_datetime TIMESTAMP NOT NULL,
    passenger_count SMALLINT, trip_distance DOUBLE PRECISION, rate_code_id SMALLINT, store_and_fwd_flag TEXT,
    pickup_location_id INTEGER NOT NULL, dropoff_location_id INTEGER NOT NULL, payment_type SMALLINT, fare_amount DECIMAL(10, 2),
    extra DECIMAL(10, 2), mta_tax DECIMAL(10, 2), tip_amount DECIMAL(10, 2), tolls_amount DECIMAL(10, 2),
    improvement_surcharge DECIMAL(10, 2), total_amount DECIMAL(10, 2), congestion_surcharge DECIMAL(10, 2), airport_fee DECIMAL(10, 2)
) WITH (connector = 'files', path = '${DATA}/trips-*.ndjson', format = 'debezium-json', time.precision.mode = 'adaptive');
CREATE SOURCE zones (location_id INTEGER PRIMARY KEY, borough TEXT NOT NULL, zone_name TEXT NOT NULL, service_zone TEXT)
    WITH (connector = 'files', path = '${DATA}/zones.csv', format = 'csv', header = 'true');
CREATE SOURCE weather (hour TIMESTAMP PRIMARY KEY, temperature_celsius DOUBLE PRECISION NOT NULL, weather_condition TEXT NOT NULL)
    WITH (connector = 'files', path = '${DATA}/weather.csv', format = 'csv', header = 'true');
";

fn lowered(query: &str) -> (Catalog, ViewPlan) {
    lowered_over(SOURCES, query)
}

fn lowered_over(sources: &str, query: &str) -> (Catalog, ViewPlan) {
    let catalog = catalog(&format!("{sources} CREATE MATERIALIZED VIEW v AS {query};"));
    let view = catalog.of_kind(RelationKind::MaterializedView).last().unwrap();
    let stored = columns_read(&catalog, &[view.id]);
    let plan = view_plan(&catalog, view.id, &stored).unwrap();
    check_types(&plan.plan);
    (catalog, plan)
}

/// What a view over the sources becomes: its key and its operators.
fn view(query: &str) -> String {
    let (catalog, plan) = lowered(query);
    text(query, &catalog, &plan)
}

fn text(query: &str, catalog: &Catalog, plan: &ViewPlan) -> String {
    let key: Vec<&str> = plan.key.iter().map(|index| plan.schema.field(*index).name().as_str()).collect();
    format!("{query}\n\nkey ({})\n{}", key.join(", "), dataflow_text(&plan.plan, catalog))
}

/// Every expression has the type that the operator's schema says, and every column that is referred to exists.
fn check_types(plan: &Plan) {
    plan.children().into_iter().for_each(check_types);
    match plan {
        Plan::Map { input, predicates, projection, schema } => {
            for (expr, field) in projection.iter().zip(schema.fields()) {
                assert_eq!(expr.data_type(&input.schema()).unwrap(), *field.data_type(), "{expr}");
            }
            assert_eq!(projection.len(), schema.fields().len());
            for predicate in predicates {
                assert_eq!(predicate.data_type(&input.schema()).unwrap(), arrow::datatypes::DataType::Boolean);
            }
        }
        Plan::TemporalFilter { input, from, until } => {
            for bound in from.iter().chain(until) {
                assert!(
                    matches!(bound.data_type(&input.schema()).unwrap(), arrow::datatypes::DataType::Timestamp(..)),
                    "{bound}"
                );
            }
        }
        Plan::Join { left, right, on, schema, .. } => {
            let (left, right) = (left.schema(), right.schema());
            assert_eq!(left.fields().len() + right.fields().len(), schema.fields().len());
            on.iter().for_each(|(l, r)| assert_eq!(left.field(*l).data_type(), right.field(*r).data_type()));
        }
        Plan::Reduce { input, keys, aggregates, schema } => {
            let input = input.schema();
            assert_eq!(keys.len() + aggregates.len(), schema.fields().len());
            for (key, field) in keys.iter().zip(schema.fields()) {
                assert_eq!(input.field(*key).data_type(), field.data_type());
            }
            aggregates.iter().flat_map(|call| &call.arguments).for_each(|argument| assert!(*argument < input.fields().len()));
        }
        Plan::Union { inputs } => {
            let types = |plan: &Plan| plan.schema().fields().iter().map(|f| f.data_type().clone()).collect::<Vec<_>>();
            inputs.iter().for_each(|input| assert_eq!(types(input), types(&inputs[0])));
        }
        _ => {}
    }
}

fn refused(query: &str) -> String {
    let mut catalog = catalog(SOURCES);
    let statement = &parse_script(&format!("CREATE MATERIALIZED VIEW v AS\n{query}"), Some("v.sql")).unwrap()[0];
    catalog.create(statement).expect_err(query).to_string()
}

macro_rules! golden {
    ($($name:ident: $query:expr,)*) => {$(
        #[test]
        fn $name() {
            insta::assert_snapshot!(stringify!($name), view($query));
        }
    )*};
}

golden! {
    projection_and_filter: "SELECT id, fare * 2 AS double_fare, upper(flag) AS flag FROM trips WHERE fare > 10 AND zone IN (1, 2)",
    projections_fuse: "SELECT a + 1 AS b FROM (SELECT zone + 1 AS a FROM trips WHERE zone > 3) AS t WHERE a < 10",
    aggregates: "SELECT zone, count(*) AS n, count(flag) AS flags, count(DISTINCT vendor) AS vendors, sum(fare) AS revenue, \
        avg(distance) AS distance, min(at) AS first, max(at) AS last, stddev(distance) AS deviation, var_pop(distance) AS variance, \
        bool_or(fare > 100) AS dear, sum(fare) FILTER (WHERE vendor = 1) AS revenue_1, count(*) FILTER (WHERE vendor = 1) AS n_1, \
        sum(DISTINCT fare) AS fares FROM trips GROUP BY zone",
    rollup: "SELECT zone, vendor, grouping(zone, vendor) AS level, count(*) AS n, sum(fare) AS revenue FROM trips GROUP BY ROLLUP (zone, vendor)",
    grouping_sets: "SELECT zone, vendor, count(DISTINCT flag) AS flags FROM trips GROUP BY GROUPING SETS ((zone), (vendor), ()) HAVING count(*) > 1",
    aggregate_of_everything: "SELECT count(*) AS n FROM trips",
    having_and_expressions: "SELECT date_trunc('day', at) AS day, sum(fare) / count(*) AS mean FROM trips \
        GROUP BY date_trunc('day', at) HAVING count(*) > 10",
    tumble: "SELECT window_start, window_end, zone, count(*) AS n FROM TUMBLE(trips, at, INTERVAL '5 minutes') GROUP BY window_start, window_end, zone",
    tumble_filtered: "SELECT window_start, count(*) AS n FROM TUMBLE(trips, at, INTERVAL '5 minutes') AS t \
        WHERE t.zone = 7 AND window_start >= TIMESTAMP '2024-01-01' GROUP BY window_start",
    hop_over_subquery: "SELECT window_start, sum(fare) AS revenue \
        FROM HOP((SELECT at, fare FROM trips WHERE zone = 1), at, INTERVAL '5 minutes', INTERVAL '1 hour') GROUP BY window_start",
    window_keeps_the_key: "SELECT id, window_start FROM TUMBLE(trips, at, INTERVAL '1 hour')",
    joins: "SELECT t.id, z.borough, fare FROM trips t JOIN zones z ON z.zone = t.zone AND t.fare > 3",
    join_using: "SELECT * FROM (SELECT id, zone FROM trips) AS t JOIN zones USING (zone)",
    join_by_where: "SELECT t.id, z.borough FROM trips t, zones z WHERE t.zone = z.zone AND t.distance > length(z.borough)",
    join_without_key: "SELECT a.id AS a, b.id AS b FROM trips a JOIN trips b ON a.vendor = b.vendor AND a.at < b.at",
    left_join: "SELECT t.id, z.borough FROM trips t LEFT JOIN zones z ON z.zone = t.zone",
    left_join_on_more: "SELECT t.id, z.borough FROM trips t LEFT JOIN zones z ON z.zone = t.zone AND t.fare > length(z.borough)",
    full_join: "SELECT t.id, z.zone FROM trips t FULL JOIN zones z ON z.zone = t.zone",
    semi_join: "SELECT id FROM trips WHERE zone IN (SELECT zone FROM zones WHERE borough = 'Queens')",
    anti_join: "SELECT id FROM trips t WHERE NOT EXISTS (SELECT 1 FROM zones z WHERE z.zone = t.zone)",
    exists_or: "SELECT id FROM trips t WHERE EXISTS (SELECT 1 FROM zones z WHERE z.zone = t.zone) OR fare > 3",
    not_in: "SELECT id FROM trips WHERE zone NOT IN (SELECT zone FROM zones)",
    scalar_subquery: "SELECT zone, count(*) AS n, 100.0 * count(*) / (SELECT count(*) FROM trips) AS share FROM trips GROUP BY zone",
    correlated_subquery: "SELECT z.zone, (SELECT max(t.fare) FROM trips t WHERE t.zone = z.zone) AS dearest FROM zones z",
    distinct: "SELECT DISTINCT zone, vendor FROM trips",
    distinct_on: "SELECT DISTINCT ON (zone) zone, id, fare FROM trips ORDER BY zone, fare DESC, id",
    union_all: "SELECT zone, fare FROM trips UNION ALL SELECT zone, 0 FROM zones",
    union: "SELECT zone FROM trips UNION SELECT zone FROM zones",
    except: "SELECT zone FROM trips EXCEPT SELECT zone FROM zones",
    intersect: "SELECT zone FROM trips INTERSECT SELECT zone FROM zones",
    constants: "SELECT * FROM (VALUES (1, 'a'), (2, 'b')) AS t (n, name) WHERE n > 1",
    common_table: "WITH busy AS (SELECT zone, count(*) AS n FROM trips GROUP BY zone) SELECT a.zone FROM busy a JOIN busy b ON a.n = b.n + 1",
    order_without_limit: "SELECT zone FROM zones ORDER BY borough",
    top_k: "SELECT id, fare FROM trips ORDER BY fare * 2 DESC NULLS LAST, id LIMIT 10 OFFSET 5",
    limit_without_order: "SELECT id FROM trips LIMIT 3",
    row_number: "SELECT zone, id, n FROM (SELECT *, row_number() OVER (PARTITION BY zone ORDER BY fare DESC, id) AS n FROM trips) AS t WHERE n <= 3",
    row_number_first: "SELECT zone, id FROM (SELECT *, row_number() OVER (PARTITION BY zone ORDER BY at) AS n FROM trips) AS t WHERE n = 1 AND fare > 5",
    row_number_between: "SELECT zone, id FROM (SELECT *, row_number() OVER (PARTITION BY zone ORDER BY at) AS n FROM trips) AS t WHERE n > 1 AND n < 4",
    window_functions: "SELECT id, lag(fare) OVER (PARTITION BY zone ORDER BY at, id) AS before, sum(fare) OVER (ORDER BY at, id \
        ROWS BETWEEN 2 PRECEDING AND CURRENT ROW) AS three, rank() OVER (PARTITION BY zone ORDER BY at, id) AS place FROM trips",
    ordered_aggregates: "SELECT zone, median(fare) AS middle, string_agg(flag, ',' ORDER BY at, id) AS flags, count(*) AS n FROM trips GROUP BY zone",
    sessions: "SELECT zone, window_start, window_end, count(*) AS n FROM SESSION(trips, at, INTERVAL '10 minutes', zone) \
        GROUP BY zone, window_start, window_end",
    latest_of_each: "SELECT t.id, l.message FROM trips t LEFT JOIN LATERAL \
        (SELECT message FROM log WHERE log.at <= t.at ORDER BY log.at DESC LIMIT 1) l ON true",
    as_of_join: "SELECT t.id, l.message FROM trips t ASOF JOIN log l MATCH_CONDITION (t.at >= l.at) ON t.vendor = l.level",
    band_join: "SELECT a.id, b.id AS near FROM trips a JOIN trips b ON b.at BETWEEN a.at - INTERVAL '1 minute' AND a.at",
    recursion: "WITH RECURSIVE r (zone, step) AS (SELECT zone, 1 FROM zones UNION ALL SELECT t.vendor, step + 1 FROM r JOIN trips t ON t.zone = r.zone \
        WHERE step < 3) SELECT zone, step FROM r",
    unnest_a_list: "SELECT id, unnest(string_to_array(flag, ',')) AS flag FROM trips",
    not_in_with_nulls: "SELECT id FROM trips WHERE vendor NOT IN (SELECT level FROM log)",
    temporal: "SELECT zone, count(*) AS n FROM trips WHERE at > now() - INTERVAL '1 hour' AND at <= now() GROUP BY zone",
    temporal_between: "SELECT id FROM trips WHERE at BETWEEN current_timestamp() - interval 7 days AND current_timestamp() + interval 1 hour",
    temporal_mirrored: "SELECT id FROM trips WHERE now() < at + INTERVAL '30 minutes'",
    temporal_difference: "SELECT id FROM trips WHERE now() - at < INTERVAL '1 hour'",
    temporal_days: "SELECT id FROM trips WHERE day >= current_date() - interval 7 days",
    temporal_today: "SELECT id FROM trips WHERE date_trunc('day', at) = date_trunc('day', now())",
    temporal_zoned: "SELECT level, message FROM log WHERE at >= now() - INTERVAL '10 seconds'",
    hidden_columns: "SELECT _op, _file, zone FROM trips",
    hidden_beside_star: "SELECT *, t._offset FROM zones t",
    new_york: "SELECT extract(hour FROM at AT TIME ZONE 'America/New_York') AS hour, count(*) AS n FROM log \
        GROUP BY 1",
    case_and_dates: "SELECT CASE WHEN fare > 10 THEN 'dear' ELSE 'cheap' END AS class, extract(hour FROM at) AS hour, \
        date_bin(INTERVAL '15 minutes', at) AS quarter, CAST(fare AS DOUBLE PRECISION) AS fare, at AT TIME ZONE 'UTC' AS utc FROM trips",
}

#[test]
fn the_benchmark_lakes() {
    let queries = [
        "SELECT window_start, pickup_location_id, count(*) AS trips, sum(total_amount) AS revenue, avg(trip_distance) AS avg_distance,
            avg(fare_amount) AS avg_fare, count(DISTINCT vendor_id) AS vendors
        FROM TUMBLE(trips, pickup_datetime, INTERVAL '5 minutes') GROUP BY window_start, window_end, pickup_location_id",
        "SELECT z.borough, w.weather_condition, extract(hour FROM t.pickup_datetime) AS hour, count(*) AS trips,
            sum(t.total_amount) AS revenue, avg(t.fare_amount) AS avg_fare,
            corr(w.temperature_celsius, CAST(t.fare_amount AS DOUBLE PRECISION)) AS temperature_fare_corr
        FROM trips t JOIN zones z ON z.location_id = t.pickup_location_id
            JOIN weather w ON w.hour = date_trunc('hour', t.pickup_datetime)
        GROUP BY z.borough, w.weather_condition, extract(hour FROM t.pickup_datetime)",
        "SELECT pickup_location_id, pickup_hour, place, dropoff_location_id, trips FROM (
            SELECT *, row_number() OVER (PARTITION BY pickup_location_id, pickup_hour ORDER BY trips DESC, dropoff_location_id) AS place
            FROM (
                SELECT pickup_location_id, date_trunc('hour', pickup_datetime) AS pickup_hour, dropoff_location_id, count(*) AS trips
                FROM trips GROUP BY pickup_location_id, date_trunc('hour', pickup_datetime), dropoff_location_id
            ) AS pairs
        ) AS ranked WHERE place <= 3",
    ];
    let plans = queries.map(|query| {
        let (catalog, plan) = lowered_over(TAXI, query);
        text(query, &catalog, &plan)
    });
    insta::assert_snapshot!(plans.join("\n"));
}

#[test]
fn constructs_that_cannot_be_maintained_are_named() {
    let queries = [
        "SELECT id, random() AS r FROM trips",
        "SELECT id, now() AS seen FROM trips",
        "SELECT id FROM trips WHERE at > now() - INTERVAL '1 hour' OR zone = 1",
        "SELECT id FROM trips WHERE at > now() - INTERVAL '1 month'",
        "WITH RECURSIVE r AS (SELECT 1 AS n UNION ALL SELECT max(n) + 1 FROM r) SELECT n FROM r",
        "WITH RECURSIVE r AS (SELECT id FROM trips UNION SELECT t.id FROM trips t WHERE NOT EXISTS (SELECT 1 FROM r WHERE r.id = t.id)) SELECT id FROM r",
        "SELECT count(*) AS n FROM trips GROUP BY CUBE (id, zone, vendor, fare, distance, at, day, flag, id + 1, zone + 1, vendor + 1)",
    ];
    let all: Vec<String> =
        queries.iter().map(|query| format!("{query}\n    {}", refused(query).replace('\n', "\n    "))).collect();
    insta::assert_snapshot!(all.join("\n"));
}

#[test]
fn a_grouping_set_that_is_there_twice_is_refused() {
    let said = refused("SELECT zone, count(*) AS n FROM trips GROUP BY GROUPING SETS ((zone), (zone))");
    assert!(said.contains("a grouping set that is there twice cannot be maintained"), "{said}");
}

#[test]
fn mistakes_have_a_place_and_a_hint() {
    let queries = [
        "SELECT zone,\n  fares FROM trips",
        "SELECT *\nFROM trip",
        "SELECT zone FROM nyc.trips",
        "SELECT zone\nFROM trips t JOIN zones z ON t.zone = z.zone",
        "SELECT zone, fare FROM trips GROUP BY zone",
        "SELECT count(*) FROM TUMBLE(trips, flag, INTERVAL '1 hour')",
        "SELECT count(*) FROM TUMBLE(trips, at, INTERVAL '1 month')",
        "SELECT count(*) FROM\n  HOP(tripz, at, INTERVAL '1 hour', INTERVAL '2 hours')",
        "SELECT rownd(fare) FROM trips",
        "SELECT fare + flag FROM trips",
        "SELECT zone AS a, id AS a FROM trips",
    ];
    let all: Vec<String> =
        queries.iter().map(|query| format!("{query}\n    {}", refused(query).replace('\n', "\n    "))).collect();
    insta::assert_snapshot!(all.join("\n"));
}

#[test]
fn only_columns_that_are_read_are_stored() {
    let catalog =
        catalog(&format!("{SOURCES} CREATE MATERIALIZED VIEW v AS SELECT zone, count(*) AS n FROM trips GROUP BY zone;"));
    let view = catalog.of_kind(RelationKind::MaterializedView).last().unwrap();
    let stored = columns_read(&catalog, &[view.id]);
    let names = |name: &str| {
        let relation = catalog.get(&crate::name::RelationName::parse(name)).unwrap();
        stored.schema(relation).fields().iter().map(|field| field.name().clone()).collect::<Vec<_>>()
    };
    assert_eq!(names("trips"), ["id", "zone"]);
    assert_eq!(names("zones"), ["zone"]);
    assert_eq!(names("log"), ["level"]);
    assert!(view_plan(&catalog, view.id, &stored).is_ok());
    let query = crate::statement::parse_statement("SELECT zone, fare FROM trips").unwrap();
    let crate::statement::StatementKind::Query(select) = &query.kind else { panic!("not a query") };
    let planned = crate::plan::plan_query(&std::sync::Arc::new(catalog.clone()), &select.query, &query.position).unwrap();
    assert!(!stored.covers(&crate::plan::query_columns(&planned)));
    let none = columns_read(&catalog, &[]);
    assert!(!none.covers(&stored) && stored.covers(&none));
    let error = view_plan(&catalog, view.id, &none).unwrap_err();
    assert!(error.message.contains("column zone of trips"), "{error}");
}

#[test]
fn views_share_materialized_views_and_inline_plain_ones() {
    let script = format!(
        "{SOURCES} CREATE MATERIALIZED VIEW hourly AS SELECT zone, date_trunc('hour', at) AS hour, count(*) AS n FROM trips GROUP BY 1, 2;
         CREATE VIEW busy AS SELECT * FROM hourly WHERE n > 100;
         CREATE MATERIALIZED VIEW boroughs AS SELECT borough, count(*) AS hours FROM busy JOIN zones USING (zone) GROUP BY borough;"
    );
    let catalog = catalog(&script);
    let view = catalog.of_kind(RelationKind::MaterializedView).last().unwrap();
    let plan = view_plan(&catalog, view.id, &columns_read(&catalog, &[view.id])).unwrap();
    insta::assert_snapshot!(crate::explain::view_text(&plan, &catalog));
}
