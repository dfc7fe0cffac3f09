-- name: ClockNow :one
SELECT clock_timestamp()::timestamptz AS now;
