-- name: SettlementAlarmList :many
-- SettlementAlarmList returns what stands of settlements that a person must know of:
-- the oldest of each alarm and weight, then the second oldest of each, and so on, so
-- that none hides another behind its number. num_standing counts all there are.
SELECT
    standing.alarm::text AS alarm,
    standing.run_id::bigint AS run_id,
    standing.programme::text AS programme,
    standing.period::text AS period,
    standing.since::timestamptz AS since,
    standing.detail::text AS detail,
    standing.age::interval AS age,
    standing.loop::text AS loop,
    standing.paused::boolean AS paused,
    standing.weight::text AS weight,
    standing.num_standing::bigint AS num_standing
FROM (
    SELECT
        each.*,
        count(*) OVER () AS num_standing,
        row_number() OVER (PARTITION BY each.alarm, each.weight ORDER BY each.since, each.run_id) AS place
    FROM settlement_alarms AS each
) AS standing
ORDER BY standing.place, standing.weight, standing.since, standing.run_id
LIMIT @max_alarms::int;

-- name: SettlementAlarmTick :one
-- SettlementAlarmTick returns the database's time, how long a due period may be
-- without its run before it alarms, and by whom the tick is paused (empty: it is not).
SELECT
    clock_timestamp()::timestamptz AS now,
    patience.tick_after::interval AS tick_after,
    coalesce((SELECT pause.detail FROM loop_pauses AS pause WHERE pause.loop = 'settlement_tick'), '')::text AS pause
FROM settlement_patience AS patience;
