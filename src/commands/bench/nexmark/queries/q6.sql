-- Average price by seller: of the last 10 auctions that closed, and this one. The order is made total by the auction's id.
SELECT w.seller, w.id, avg(w.price) OVER (PARTITION BY w.seller ORDER BY w.date_time, w.id ROWS BETWEEN 10 PRECEDING AND CURRENT ROW) AS average
FROM (
    SELECT a.id, a.seller, b.price, b.date_time,
        row_number() OVER (PARTITION BY a.id, a.seller ORDER BY b.price DESC, b.date_time) AS place
    FROM auction AS a JOIN bid AS b ON a.id = b.auction
    WHERE b.date_time BETWEEN a.date_time AND a.expires
) AS w
WHERE w.place <= 1
