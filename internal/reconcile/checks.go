package reconcile

// countedFindings wraps a check: its first findings, with the numbers of all.
const countedFindings = `
SELECT
    coalesce(found.key, ''),
    coalesce(found.event_id::text, ''),
    coalesce(found.sequence, 0),
    found.detail,
    coalesce(found.mendable, false),
    count(*) FILTER (WHERE found.mendable) OVER (),
    count(*) OVER ()
FROM (%s) AS found
ORDER BY found.sequence, found.key, found.event_id, found.detail
LIMIT $1`

// checks are all kinds, in the order in which they are told.
func checks() []check {
	return []check{
		{KindLost, findLost},
		{KindUnmarked, findUnmarked},
		{KindGhost, findGhosts},
		{KindKeyBehind, findKeysBehind},
		{KindOutOfOrder, findOutOfOrder},
		{KindOvertaken, findOvertaken},
		{KindDifferent, findDifferent},
		{KindWrongRef, findWrongRefs},
		{KindRepeat, findRepeats},
		{KindDiscardedButStored, findDiscarded},
		{KindUnreadable, findUnreadable},
		{KindJobContradiction, findContradictions},
	}
}

// Conditions that a check and a count share, on a suspect and the scope.
const (
	// isRecent: published since the reading began, and behind its end or nowhere that
	// can be told: the message may have been stored since.
	isRecent = `(suspect.published_at >= scope.started_at AND (suspect.ref_sequence IS NULL OR suspect.ref_sequence > scope.last_sequence))`

	// isExpired: the broker's retention may have removed the message. How old the
	// message of an adopted row was is not known.
	isExpired = `(suspect.ref_sequence < scope.first_sequence AND (
        scope.keeps_no_age
        OR suspect.published_at < scope.kept_since
        OR (scope.kept_since IS NOT NULL AND ` + isAdopted + `)
    ))`

	// isAdopted: somebody else than the relay marked the row, with a time of its own.
	isAdopted = `EXISTS (
        SELECT FROM outbox_intervention AS intervention
        WHERE intervention.act = 'adopt'
            AND intervention.event_id = suspect.event_id
    )`

	// isForgotten: a message so old that its row may be gone.
	isForgotten = `coalesce(suspect.stored_at < scope.forgotten_before, false)`

	// isUnmarked: a message whose row is open.
	isUnmarked = `(suspect.id IS NOT NULL AND suspect.sequence IS NOT NULL AND suspect.published_at IS NULL AND suspect.discarded_at IS NULL)`

	// isInFlight: of those, one that is younger than the grace.
	isInFlight = `coalesce(suspect.stored_at >= scope.unmarked_before, false)`

	// isSame: the message says what the row says.
	isSame = `(suspect.problem IS NULL
        AND (suspect.message_key, suspect.message_key_seq, suspect.message_type) = (suspect.key, suspect.key_seq, suspect.type))`
)

// findLost: what is gone from the front of a stream counts only if the broker's
// retention cannot have removed it.
const findLost = `
SELECT
    suspect.key,
    suspect.event_id,
    suspect.ref_sequence AS sequence,
    CASE
        WHEN suspect.ref_sequence IS NULL THEN format('the row says that it is at %L, which is no place in stream %s, and the broker does not have it', suspect.bad_ref, scope.name)
        WHEN suspect.ref_sequence > scope.last_sequence THEN format(
            'the row says that it is at %s/%s, but the stream ends at %s: the broker was restored or made anew without it',
            scope.name, suspect.ref_sequence, scope.last_sequence)
        WHEN suspect.ref_sequence < scope.first_sequence THEN format(
            'the row says that it is at %s/%s, but the stream begins at %s, and by itself it removes nothing%s: it was purged, or removed by hand',
            scope.name, suspect.ref_sequence, scope.first_sequence, CASE WHEN scope.kept_since IS NOT NULL THEN ' as young' ELSE '' END)
        WHEN there.event_id IS NOT NULL THEN format('the row says that it is at %s/%s, where event %s is, and the broker does not have it', scope.name, suspect.ref_sequence, there.event_id)
        ELSE format('the row says that it is at %s/%s, but nothing is there: it was removed from the broker', scope.name, suspect.ref_sequence)
    END || '; consumers that have not read it must be told what the row says' AS detail,
    false AS mendable
FROM reconcile_suspect AS suspect
CROSS JOIN reconcile_scope AS scope
LEFT JOIN reconcile_message AS there ON there.sequence = suspect.ref_sequence
WHERE suspect.published_at IS NOT NULL
    AND suspect.sequence IS NULL
    AND coalesce(NOT ` + isExpired + `, true)
    AND NOT ` + isRecent

// findWrongRefs: a place below the first message that is left held an earlier copy.
const findWrongRefs = `
SELECT
    suspect.key,
    suspect.event_id,
    suspect.sequence,
    CASE
        WHEN suspect.ref_sequence IS NULL THEN format('the row says that it is at %L, which is no place in stream %s', suspect.bad_ref, scope.name)
        ELSE format('the row says that it is at %s/%s, which is not where it is', scope.name, suspect.ref_sequence)
    END
        || CASE WHEN suspect.sequence IS NOT NULL THEN format('; the broker has it at %s/%s', scope.name, suspect.sequence) ELSE '' END
        || '; the event arrived, but whatever wrote that acknowledgement is broken: report it' AS detail,
    false AS mendable
FROM reconcile_suspect AS suspect
CROSS JOIN reconcile_scope AS scope
WHERE suspect.published_at IS NOT NULL
    AND suspect.sequence IS NOT NULL
    AND suspect.ref_sequence IS DISTINCT FROM suspect.sequence
    AND (suspect.ref_sequence IS NULL OR suspect.ref_sequence >= scope.first_sequence)
    AND NOT (suspect.ref_sequence IS NOT NULL AND ` + isRecent + `)
    AND NOT EXISTS (
        SELECT FROM reconcile_repeat AS repeated
        WHERE repeated.event_id = suspect.event_id
            AND repeated.sequence = suspect.ref_sequence
    )`

const findUnmarked = `
SELECT
    suspect.key,
    suspect.event_id,
    suspect.sequence,
    format('the broker has it at %s/%s, stored %s, and its row is %s; ',
        scope.name, suspect.sequence, suspect.stored_at, CASE WHEN suspect.parked_at IS NOT NULL THEN 'parked' ELSE 'not marked as published' END)
        || CASE WHEN ` + isSame + `
            THEN CASE
                WHEN suspect.parked_at IS NOT NULL THEN '''outbox reconcile --adopt'' marks it, or ''outbox redrive'' sends it again'
                ELSE 'the relay sends it again, or ''outbox reconcile --adopt'' marks it'
            END
            ELSE 'the message does not say what the row says, so it cannot be adopted: find out who published it'
        END AS detail,
    ` + isSame + ` AS mendable
FROM reconcile_suspect AS suspect
CROSS JOIN reconcile_scope AS scope
WHERE ` + isUnmarked + `
    AND NOT ` + isInFlight

const findGhosts = `
SELECT
    suspect.message_key AS key,
    suspect.event_id,
    suspect.sequence,
    format('the broker has it at %s/%s, stored %s, as number %s of its key, and no row knows it: the database was restored from an older backup, or somebody else publishes here; '
        || 'consumers may have read it, so leave it and bring what it tells back into the database',
        scope.name, suspect.sequence, suspect.stored_at, suspect.message_key_seq) AS detail,
    false AS mendable
FROM reconcile_suspect AS suspect
CROSS JOIN reconcile_scope AS scope
WHERE suspect.id IS NULL
    AND suspect.problem IS NULL
    AND NOT ` + isForgotten

const findKeysBehind = `
SELECT
    ahead.key,
    ahead.event_id,
    ahead.sequence,
    format('the broker has number %s of this key, and the database gave out numbers up to %s: it would use them again, and consumers drop what comes with a number that they know; ',
        ahead.highest, ahead.last_seq)
        || CASE
            WHEN scope.key_seq_source = 'supplied' THEN format('before anything is appended, set the version of what the key names to %s', ahead.highest)
            WHEN ahead.is_whole THEN '''outbox reconcile --adopt'' raises outbox_key.last_seq'
            ELSE format('numbers between are missing at the broker, so it is not adopted: find out who published it, or set outbox_key.last_seq to %s by hand', ahead.highest)
        END AS detail,
    scope.key_seq_source = 'counted' AND ahead.is_whole AS mendable
FROM reconcile_ahead AS ahead
CROSS JOIN reconcile_scope AS scope`

// findOutOfOrder leaves out what may come late: an event that was sent after all
// behind its gap marker, the marker of one that had been stored without anybody knowing,
// and a copy whose first one the broker no longer keeps.
const findOutOfOrder = `
SELECT
    late.key,
    late.event_id,
    late.sequence,
    format('number %s of its key is first stored at %s/%s, behind number %s; consumers drop it, so tell them what its row says, and report the worker that published it',
        late.key_seq, scope.name, late.sequence, late.highest_before) AS detail,
    false AS mendable
FROM reconcile_late AS late
CROSS JOIN reconcile_scope AS scope
LEFT JOIN reconcile_row AS event ON event.event_id = late.event_id
WHERE NOT (event.id IS NULL AND coalesce(late.stored_at < scope.forgotten_before, false))
    AND NOT coalesce(event.ref_sequence < scope.first_sequence, false)
    AND NOT (scope.park_policy = 'skip' AND event.published_at IS NOT NULL AND event.parked_at IS NOT NULL)
    AND NOT (
        late.type <> '` + gapType + `'
        AND EXISTS (SELECT FROM reconcile_gap AS gap WHERE gap.key = late.key AND gap.key_seq = late.key_seq)
    )
    AND NOT (
        late.type = '` + gapType + `'
        AND EXISTS (
            SELECT FROM reconcile_message AS own
            WHERE own.key = late.key
                AND own.key_seq = late.key_seq
                AND own.type <> '` + gapType + `'
                AND own.sequence < late.sequence
        )
    )`

const findOvertaken = `
SELECT
    event.key,
    event.event_id,
    NULL::bigint AS sequence,
    format('number %s of its key is not delivered, and number %s is at the broker; consumers drop it when it comes, so tell them what its row says, and report the worker that published the later one',
        event.key_seq, known.highest) AS detail,
    false AS mendable
FROM reconcile_row AS event
JOIN reconcile_key AS known ON known.key = event.key AND known.highest > event.key_seq
LEFT JOIN reconcile_message AS message ON message.event_id = event.event_id
WHERE event.published_at IS NULL
    AND event.discarded_at IS NULL
    AND event.type <> '` + gapType + `'
    AND message.sequence IS NULL
    AND NOT EXISTS (SELECT FROM reconcile_gap AS gap WHERE gap.key = event.key AND gap.key_seq = event.key_seq)`

const findDifferent = `
SELECT
    event.key,
    event.event_id,
    message.sequence,
    format('the message at %s/%s is number %s of key %L, type %s, and its row is number %s of key %L, type %s; consumers believe the message: find out who published it',
        scope.name, message.sequence, message.key_seq, message.key, message.type, event.key_seq, event.key, event.type) AS detail,
    false AS mendable
FROM (
    SELECT sequence, event_id, message_key AS key, message_key_seq AS key_seq, message_type AS type, problem FROM reconcile_suspect
    UNION ALL
    SELECT sequence, event_id, key, key_seq, type, problem FROM reconcile_repeat
) AS message
CROSS JOIN reconcile_scope AS scope
JOIN reconcile_suspect AS event ON event.event_id = message.event_id AND event.id IS NOT NULL
WHERE message.problem IS NULL
    AND (message.key, message.key_seq, message.type) <> (event.key, event.key_seq, event.type)`

// findRepeats judges rows whose attempts are all counted: not open ones, and not
// those that were adopted, whose attempts an older backup did not know.
const findRepeats = `
SELECT
    suspect.key,
    suspect.event_id,
    suspect.sequence,
    format('the broker has it %s times, and its row counts %s attempts; consumers drop repeats by its id, but report the worker that sent it unasked',
        suspect.num_stored, suspect.attempts) AS detail,
    false AS mendable
FROM reconcile_suspect AS suspect
WHERE suspect.num_stored > greatest(suspect.attempts, 1)
    AND num_nonnulls(suspect.published_at, suspect.discarded_at) > 0
    AND NOT ` + isAdopted

const findDiscarded = `
SELECT
    suspect.key,
    suspect.event_id,
    suspect.sequence,
    format('the row was discarded %s, but the broker has the event at %s/%s, stored %s; tell consumers whether it counts',
        suspect.discarded_at, scope.name, suspect.sequence, suspect.stored_at) AS detail,
    false AS mendable
FROM reconcile_suspect AS suspect
CROSS JOIN reconcile_scope AS scope
WHERE suspect.discarded_at IS NOT NULL
    AND suspect.sequence IS NOT NULL`

const findUnreadable = `
SELECT
    message.key,
    message.event_id,
    message.sequence,
    format('the message at %s/%s is no event as consumers are promised: %s; find out who published it', scope.name, message.sequence, message.problem) AS detail,
    false AS mendable
FROM (
    SELECT sequence, event_id, key, problem FROM reconcile_message
    UNION ALL
    SELECT sequence, event_id, key, problem FROM reconcile_repeat
) AS message
CROSS JOIN reconcile_scope AS scope
WHERE message.problem IS NOT NULL`

// countAll counts both sides, in the order of the fields of StreamResult.
const countAll = `
SELECT
    suspects.num_expired,
    suspects.num_forgot,
    suspects.num_in_flight,
    suspects.num_recent,
    (SELECT count(*) FROM reconcile_repeat),
    counted.num_discarded,
    counted.num_parked,
    counted.num_published,
    counted.num_rows - counted.num_discarded - counted.num_parked - counted.num_published
FROM (
    SELECT
        count(*) FILTER (WHERE suspect.published_at IS NOT NULL AND suspect.sequence IS NULL AND ` + isExpired + `) AS num_expired,
        count(*) FILTER (WHERE suspect.id IS NULL AND suspect.problem IS NULL AND ` + isForgotten + `) AS num_forgot,
        count(*) FILTER (WHERE ` + isUnmarked + ` AND ` + isInFlight + `) AS num_in_flight,
        count(*) FILTER (WHERE suspect.sequence IS NULL AND ` + isRecent + `) AS num_recent
    FROM reconcile_suspect AS suspect
    CROSS JOIN reconcile_scope AS scope
) AS suspects
CROSS JOIN (
    SELECT
        count(*) AS num_rows,
        count(event.discarded_at) AS num_discarded,
        count(*) FILTER (WHERE event.parked_at IS NOT NULL AND num_nonnulls(event.published_at, event.discarded_at) = 0) AS num_parked,
        count(event.published_at) AS num_published
    FROM reconcile_row AS event
) AS counted`
