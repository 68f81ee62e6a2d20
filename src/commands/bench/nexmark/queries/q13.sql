-- Bounded side input: a small table that is there from the start (a maintained join: a change of the table would change all rows).
SELECT b.auction, b.bidder, b.price, b.date_time, s.value
FROM bid AS b JOIN side_input AS s ON b.auction % 10000 = s.key
