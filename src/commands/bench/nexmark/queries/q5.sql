-- Hot items: the auctions with the most bids of the last 10 seconds, every 2 seconds.
SELECT counted.auction, counted.num
FROM (
    SELECT auction, count(*) AS num, window_start, window_end
    FROM HOP(bid, date_time, INTERVAL '2 seconds', INTERVAL '10 seconds')
    GROUP BY auction, window_start, window_end
) AS counted
JOIN (
    SELECT max(num) AS most, window_start, window_end
    FROM (
        SELECT count(*) AS num, window_start, window_end
        FROM HOP(bid, date_time, INTERVAL '2 seconds', INTERVAL '10 seconds')
        GROUP BY auction, window_start, window_end
    ) AS each
    GROUP BY window_start, window_end
) AS greatest
ON counted.window_start = greatest.window_start AND counted.window_end = greatest.window_end AND counted.num >= greatest.most
