-- Tables for the tests of the chain: one with a key and every common type, one with a composite key, one without any key.
create table orders (
    id bigint primary key,
    customer text not null,
    quantity integer,
    price numeric(10,2),
    weight double precision,
    express boolean not null default false,
    ordered_at timestamp not null,
    changed_at timestamptz not null default '2024-01-01 00:00:00+00',
    delivery date
);

create table stock (
    warehouse text,
    article integer,
    pieces integer not null,
    primary key (warehouse, article)
);

create table readings (
    sensor text,
    value numeric(8,3)
);
-- Without a key Debezium needs the whole old row.
alter table readings replica identity full;
