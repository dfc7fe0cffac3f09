package reconcile

import "fmt"

// The statements of this package work on temporary tables, which are not in the
// schema that sqlc knows, so they are written here.

// clockSlack is how far the clocks of the broker and the database may be apart, where
// a message of one is compared with what the other no longer keeps.
const clockSlack = "5 minutes"

// gapType is the type of the marker that takes the place of an event that is not
// sent: it has that event's key and number.
const gapType = "truegreen.gap.v1"

// createTables makes what one session needs for all streams. reconcile_message has
// the first message of each event, reconcile_repeat those that came again. What was
// delivered before forgotten_before may have no row any more, and what was marked
// before kept_since no message. reconcile_resolved is what became of rows, where
// jobs are held against them; see insertResolved.
const createTables = `
CREATE TEMPORARY TABLE reconcile_scope (
    first_sequence bigint NOT NULL,
    forgotten_before timestamptz,
    job_kind text NOT NULL,
    keeps_no_age boolean NOT NULL,
    kept_since timestamptz,
    key_seq_source text NOT NULL,
    last_sequence bigint NOT NULL,
    name text NOT NULL,
    num_shards integer NOT NULL,
    park_policy text NOT NULL,
    started_at timestamptz NOT NULL,
    stream text NOT NULL,
    unmarked_before timestamptz
);
CREATE TEMPORARY TABLE reconcile_message (
    sequence bigint NOT NULL,
    key_seq bigint NOT NULL,
    stored_at timestamptz NOT NULL,
    event_id uuid,
    num_stored integer NOT NULL DEFAULT 1,
    key text COLLATE "C" NOT NULL,
    type text COLLATE "C" NOT NULL,
    problem text
);
CREATE TEMPORARY TABLE reconcile_repeat (LIKE reconcile_message);
CREATE TEMPORARY TABLE reconcile_key (
    highest bigint NOT NULL,
    key text COLLATE "C" NOT NULL
);
CREATE TEMPORARY TABLE reconcile_late (LIKE reconcile_message, highest_before bigint NOT NULL);
CREATE TEMPORARY TABLE reconcile_row (
    id bigint NOT NULL,
    key_seq bigint NOT NULL,
    published_at timestamptz,
    parked_at timestamptz,
    discarded_at timestamptz,
    ref_sequence bigint,
    event_id uuid NOT NULL,
    attempts integer NOT NULL,
    bad_ref text,
    key text COLLATE "C" NOT NULL,
    type text COLLATE "C" NOT NULL
);
CREATE TEMPORARY TABLE reconcile_job (
    id bigint NOT NULL,
    attempted_at timestamptz NOT NULL,
    ended_before timestamptz NOT NULL,
    finalized_at timestamptz NOT NULL,
    first_id bigint,
    last_id bigint,
    num_failed bigint NOT NULL,
    num_published bigint NOT NULL,
    num_sent bigint NOT NULL,
    shard integer
);
CREATE TEMPORARY TABLE reconcile_resolved (
    id bigint NOT NULL,
    resolved_at timestamptz NOT NULL,
    shard integer NOT NULL,
    was_passed boolean NOT NULL
);
CREATE INDEX reconcile_resolved_passed_idx ON reconcile_resolved (shard, id) WHERE was_passed;
CREATE TEMPORARY TABLE reconcile_gap (
    key_seq bigint NOT NULL,
    key text COLLATE "C" NOT NULL
);
CREATE TEMPORARY TABLE reconcile_suspect (
    sequence bigint,
    message_key_seq bigint,
    stored_at timestamptz,
    message_key text COLLATE "C",
    message_type text COLLATE "C",
    num_stored integer,
    problem text,
    event_id uuid,
    id bigint,
    key_seq bigint,
    published_at timestamptz,
    parked_at timestamptz,
    discarded_at timestamptz,
    ref_sequence bigint,
    attempts integer,
    bad_ref text,
    key text COLLATE "C",
    type text COLLATE "C"
);
CREATE TEMPORARY TABLE reconcile_behind (
    last_seq bigint NOT NULL,
    key text COLLATE "C" NOT NULL
);
CREATE TEMPORARY TABLE reconcile_ahead (
    event_id uuid NOT NULL,
    highest bigint NOT NULL,
    last_seq bigint NOT NULL,
    sequence bigint NOT NULL,
    is_whole boolean NOT NULL,
    key text COLLATE "C" NOT NULL
);`

const emptyTables = `
TRUNCATE reconcile_scope, reconcile_message, reconcile_repeat, reconcile_key, reconcile_late, reconcile_row,
    reconcile_job, reconcile_resolved, reconcile_gap, reconcile_suspect, reconcile_behind, reconcile_ahead`

// insertScope stores what is compared. What the broker's retention removed was old
// enough by now, and not yet when the reading began.
const insertScope = `
INSERT INTO reconcile_scope (
    first_sequence, job_kind, key_seq_source, last_sequence, name, num_shards, park_policy, started_at, stream, unmarked_before, keeps_no_age, kept_since
)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, clock_timestamp() - $12::interval + interval '` + clockSlack + `')`

// readSteps order what was read of the broker.
func readSteps() []step {
	return []step{
		{"analyze messages", "ANALYZE reconcile_message, reconcile_scope"},
		{"set repeats apart", `
			WITH repeated AS (
				SELECT event_id, min(sequence) AS first_sequence, count(*) AS num_stored
				FROM reconcile_message
				WHERE event_id IS NOT NULL
				GROUP BY event_id
				HAVING count(*) > 1
			), moved AS (
				DELETE FROM reconcile_message AS message
				USING repeated
				WHERE message.event_id = repeated.event_id
					AND message.sequence > repeated.first_sequence
				RETURNING message.*
			), counted AS (
				UPDATE reconcile_message AS message
				SET num_stored = repeated.num_stored
				FROM repeated
				WHERE message.event_id = repeated.event_id
					AND message.sequence = repeated.first_sequence
			)
			INSERT INTO reconcile_repeat
			SELECT * FROM moved`},
		{"find the highest number of each key", `
			INSERT INTO reconcile_key (highest, key)
			SELECT max(key_seq), key
			FROM reconcile_message
			WHERE problem IS NULL
			GROUP BY key`},
		// Of a marker and the event that it stands for, whichever comes second has
		// the same number.
		{"analyze keys", "ANALYZE reconcile_key"},
		{"find what is behind a later event of its key", `
			INSERT INTO reconcile_late
			SELECT *
			FROM (
				SELECT
					message.*,
					max(message.key_seq) OVER (
						PARTITION BY message.key ORDER BY message.sequence ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING
					) AS highest_before
				FROM reconcile_message AS message
				WHERE message.problem IS NULL
			) AS ordered
			WHERE ordered.key_seq < ordered.highest_before
				OR (ordered.key_seq = ordered.highest_before AND ordered.type <> '` + gapType + `')`},
	}
}

// insertRows splits each broker_ref once: OFFSET 0 keeps an expression from being
// written out wherever its name stands.
const insertRows = `
INSERT INTO reconcile_row (id, key_seq, published_at, parked_at, discarded_at, ref_sequence, event_id, attempts, bad_ref, key, type)
SELECT
    event.id, event.key_seq, event.published_at, event.parked_at, event.discarded_at, event.ref_sequence, event.event_id, event.attempts,
    CASE WHEN event.ref_sequence IS NULL THEN event.broker_ref END,
    event.key, event.type
FROM (
    SELECT
        split.*,
        CASE WHEN length(split.place) BETWEEN 1 AND 18 AND split.place !~ '[^0-9]' THEN split.place::bigint END AS ref_sequence
    FROM (
        SELECT
            event.id, event.key_seq, event.published_at, event.parked_at, event.discarded_at, event.event_id, event.attempts, event.broker_ref,
            event.key, event.type,
            CASE WHEN starts_with(event.broker_ref, scope.name || '/') THEN substr(event.broker_ref, length(scope.name) + 2) END AS place
        FROM reconcile_scope AS scope
        JOIN outbox_events AS event ON event.stream = scope.stream
        OFFSET 0
    ) AS split
    OFFSET 0
) AS event`

// snapshotSteps read the database as it is at one instant.
func snapshotSteps() []step {
	return []step{
		{"read rows", insertRows},
		{"read jobs", fmt.Sprintf(insertJobs, jobNumber("first_id"), jobNumber("last_id"), jobNumber("num_failed"), jobNumber("num_published"), jobNumber("num_sent"))},
	}
}

// compareSteps set apart whatever is not plainly right: few rows, unless something
// is very wrong.
func compareSteps() []step {
	return []step{
		// Behind the snapshot, so that nothing that was missing in it was dropped later.
		{"read what the database no longer keeps", `
			UPDATE reconcile_scope
			SET forgotten_before = (SELECT max(retention.dropped_before) FROM outbox_retention AS retention) + interval '` + clockSlack + `'`},
		{"leave out jobs whose rows may be gone", `
			DELETE FROM reconcile_job AS job
			USING reconcile_scope AS scope
			WHERE job.attempted_at < scope.forgotten_before`},
		{"analyze rows", "ANALYZE reconcile_row, reconcile_job"},
		{"list resolved rows", insertResolved},
		{"analyze resolved rows", "ANALYZE reconcile_resolved"},
		{"list gap markers", `
			INSERT INTO reconcile_gap (key_seq, key)
			SELECT key_seq, key FROM reconcile_row WHERE type = '` + gapType + `'
			UNION
			SELECT key_seq, key FROM reconcile_message WHERE type = '` + gapType + `'`},
		{"compare messages with rows", `
			INSERT INTO reconcile_suspect (
				sequence, message_key_seq, stored_at, message_key, message_type, num_stored, problem, event_id,
				id, key_seq, published_at, parked_at, discarded_at, ref_sequence, attempts, bad_ref, key, type
			)
			SELECT
				message.sequence, message.key_seq, message.stored_at, message.key, message.type, message.num_stored, message.problem,
				coalesce(event.event_id, message.event_id),
				event.id, event.key_seq, event.published_at, event.parked_at, event.discarded_at, event.ref_sequence, event.attempts, event.bad_ref,
				event.key, event.type
			FROM reconcile_message AS message
			FULL JOIN reconcile_row AS event ON event.event_id = message.event_id
			WHERE event.id IS NULL
				OR (message.sequence IS NULL AND event.published_at IS NOT NULL)
				OR (
					message.sequence IS NOT NULL
					AND (
						event.published_at IS NULL
						OR event.ref_sequence IS DISTINCT FROM message.sequence
						OR message.num_stored > 1
						OR message.problem IS NOT NULL
						OR (message.key, message.key_seq, message.type) <> (event.key, event.key_seq, event.type)
					)
				)`},
		{"analyze suspects", "ANALYZE reconcile_suspect"},
		{"compare the numbers of keys", insertBehind},
		{"analyze keys", "ANALYZE reconcile_behind"},
		{"find what has the higher numbers", insertAhead},
	}
}

// insertBehind finds the keys of which the broker has higher numbers than the
// database gave out. A stream that counts by itself knows the last number of each
// key; of others the rows tell, as far as they are kept.
const insertBehind = `
INSERT INTO reconcile_behind (key, last_seq)
SELECT known.key, coalesce(counted.last_seq, 0) AS last_seq
FROM reconcile_scope AS scope
CROSS JOIN reconcile_key AS known
LEFT JOIN outbox_key AS counted ON counted.stream = scope.stream AND counted.key = known.key COLLATE "C"
WHERE scope.key_seq_source = 'counted'
    AND known.highest > coalesce(counted.last_seq, 0)

UNION ALL

SELECT ghost.key, coalesce(max(event.key_seq), 0)
FROM (
    SELECT suspect.message_key AS key, max(suspect.message_key_seq) AS highest
    FROM reconcile_suspect AS suspect
    CROSS JOIN reconcile_scope AS scope
    WHERE scope.key_seq_source = 'supplied'
        AND suspect.id IS NULL
        AND suspect.problem IS NULL
        AND (scope.forgotten_before IS NULL OR suspect.stored_at >= scope.forgotten_before)
    GROUP BY suspect.message_key
) AS ghost
LEFT JOIN reconcile_row AS event ON event.key = ghost.key
GROUP BY ghost.key, ghost.highest
HAVING ghost.highest > coalesce(max(event.key_seq), 0)`

// insertAhead finds the events that have those numbers.
const insertAhead = `
INSERT INTO reconcile_ahead (event_id, highest, last_seq, sequence, is_whole, key)
SELECT
    (array_agg(message.event_id ORDER BY message.key_seq DESC, message.sequence))[1],
    max(message.key_seq),
    behind.last_seq,
    (array_agg(message.sequence ORDER BY message.key_seq DESC, message.sequence))[1],
    -- Numbers have no gaps. What has some was not given out by this database.
    count(DISTINCT message.key_seq) = max(message.key_seq) - min(message.key_seq) + 1
        AND (min(message.key_seq) = behind.last_seq + 1 OR max(scope.first_sequence) > 1),
    behind.key
FROM reconcile_behind AS behind
CROSS JOIN reconcile_scope AS scope
JOIN reconcile_message AS message ON message.key = behind.key
WHERE message.problem IS NULL
    AND message.key_seq > behind.last_seq
    -- Not even begun if there is no such key, as there should not be.
    AND (SELECT count(*) FROM reconcile_behind) > 0
GROUP BY behind.key, behind.last_seq`
