-- The three streams of Nexmark, and the small table of query 13. Nothing has a key: as in the other systems' circuits, what comes is inserted.
CREATE SOURCE person (
    id BIGINT NOT NULL, name TEXT NOT NULL, email_address TEXT NOT NULL, credit_card TEXT NOT NULL, city TEXT NOT NULL, state TEXT NOT NULL,
    date_time TIMESTAMP NOT NULL, extra TEXT NOT NULL
) WITH (connector = 'files', path = 'person.csv');
CREATE SOURCE auction (
    id BIGINT NOT NULL, item_name TEXT NOT NULL, description TEXT NOT NULL, initial_bid BIGINT NOT NULL, reserve BIGINT NOT NULL,
    date_time TIMESTAMP NOT NULL, expires TIMESTAMP NOT NULL, seller BIGINT NOT NULL, category BIGINT NOT NULL, extra TEXT NOT NULL
) WITH (connector = 'files', path = 'auction.csv');
CREATE SOURCE bid (
    auction BIGINT NOT NULL, bidder BIGINT NOT NULL, price BIGINT NOT NULL, channel TEXT NOT NULL, url TEXT NOT NULL,
    date_time TIMESTAMP NOT NULL, extra TEXT NOT NULL
) WITH (connector = 'files', path = 'bid.csv');
CREATE SOURCE side_input (key BIGINT NOT NULL, value TEXT NOT NULL) WITH (connector = 'files', path = 'side_input.csv');
