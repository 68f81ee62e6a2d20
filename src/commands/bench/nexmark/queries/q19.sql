-- The 10 highest bids of each auction. The order is made total by time and bidder.
SELECT auction, bidder, price, channel, url, date_time, extra, place
FROM (
    SELECT *, row_number() OVER (PARTITION BY auction ORDER BY price DESC, date_time, bidder) AS place FROM bid
) AS ranked
WHERE place <= 10
