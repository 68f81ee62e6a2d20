-- User sessions: how many bids did a user make in each session of activity?
SELECT bidder, count(*) AS bids, window_start, window_end
FROM SESSION(bid, date_time, INTERVAL '10 seconds', bidder)
GROUP BY bidder, window_start, window_end
