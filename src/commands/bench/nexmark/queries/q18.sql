-- Last bid of each bidder on each auction. The order is made total by the price.
SELECT auction, bidder, price, channel, url, date_time, extra
FROM (
    SELECT *, row_number() OVER (PARTITION BY bidder, auction ORDER BY date_time DESC, price) AS place FROM bid
) AS ranked
WHERE place <= 1
