-- Bids of a user in windows of 10 seconds: of the event's time, where the reference has the time of processing, so that the answer can be checked.
SELECT bidder, count(*) AS bids, window_start, window_end
FROM TUMBLE(bid, date_time, INTERVAL '10 seconds')
GROUP BY bidder, window_start, window_end
