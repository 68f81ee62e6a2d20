-- Highest bid of each 10 seconds.
SELECT b.auction, b.price, b.bidder, b.date_time, b.extra
FROM bid AS b
JOIN (
    SELECT max(price) AS most, window_end
    FROM TUMBLE(bid, date_time, INTERVAL '10 seconds')
    GROUP BY window_start, window_end
) AS greatest ON b.price = greatest.most
WHERE b.date_time BETWEEN greatest.window_end - INTERVAL '10 seconds' AND greatest.window_end
