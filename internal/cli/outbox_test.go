package cli_test

import (
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"truegreen/internal/cli"
)

func TestExecute_OutboxStatus(t *testing.T) {
	t.Parallel()

	t.Run("IsGoodWhenNothingIsParked", func(t *testing.T) {
		t.Parallel()

		bundle := setup(t)
		bundle.actions.outbox = []cli.StreamStatus{{LastPublishedAge: new(2 * time.Second), Name: "agent", OldestDueAge: new(3 * time.Hour), Pending: 9, Published: 12}}
		require.Equal(t, cli.ExitGood, bundle.run(t, "outbox", "status"), "old events are the judgement of status")
		require.Equal(t, []string{"outbox status"}, bundle.actions.calls)
		require.Equal(t, []string{"database"}, bundle.groups)
		require.Equal(t, `STREAM  PENDING  DELAYED  BLOCKED  PARKED  PUBLISHED  OLDEST DUE  LAST ACKNOWLEDGED
agent   9        0        0        0       12         3h          2s ago
`, bundle.out.String())
	})

	t.Run("IsOneWhenSomethingIsParked", func(t *testing.T) {
		t.Parallel()

		streams := []cli.StreamStatus{{Name: "agent"}, {Blocked: 4, Name: "wallet", Parked: 2}}
		bundle := setup(t)
		bundle.actions.outbox = streams
		require.Equal(t, cli.ExitFindings, bundle.run(t, "outbox", "status"))
		require.Contains(t, bundle.out.String(), "\n2 events parked, each waits for a person\n  next: truegreen outbox parked\n")
		require.Empty(t, bundle.errOut.String())

		bundle = setup(t)
		bundle.actions.outbox = streams
		require.Equal(t, cli.ExitFindings, bundle.run(t, "outbox", "status", "--json"))
		require.JSONEq(t, `{"num_parked": 2, "streams": [
			{"blocked": 0, "delayed": 0, "name": "agent", "parked": 0, "pending": 0, "published": 0, "last_published_age_ms": null, "oldest_due_age_ms": null},
			{"blocked": 4, "delayed": 0, "name": "wallet", "parked": 2, "pending": 0, "published": 0, "last_published_age_ms": null, "oldest_due_age_ms": null}
		]}`, bundle.out.String())
	})

	t.Run("FailsWhenItCannotBeAsked", func(t *testing.T) {
		t.Parallel()

		bundle := setup(t)
		bundle.actions.err = errors.New("no database")
		require.Equal(t, cli.ExitFailed, bundle.run(t, "outbox", "status"))
		require.Equal(t, "truegreen: no database\n", bundle.errOut.String())
		require.Empty(t, bundle.out.String())
	})
}

func TestExecute_OutboxParked(t *testing.T) {
	t.Parallel()

	t.Run("PrintsATableAndHowManyMoreThereAre", func(t *testing.T) {
		t.Parallel()

		bundle := setup(t)
		bundle.actions.parked = cli.OutboxParked{Events: []cli.OutboxParkedEvent{sampleParkedEvent()}, NumMatching: 3}
		require.Equal(t, cli.ExitGood, bundle.run(t, "outbox", "parked"))
		require.Equal(t, []string{"parked " + noFilter + " limit 50"}, bundle.actions.calls)
		require.Equal(t, []string{"database"}, bundle.groups)
		require.Equal(t, `STREAM  EVENT ID                              KEY      SEQ  TYPE                PARKED    POLICY  REASON     CLASS      ERROR
wallet  0198f0a2-7c54-7d1e-9b6f-3f2a8c1d5e70  p-1/KRW  7    wallet.credited.v1  1h5m ago  block   permanent  permanent  too large

1 shown, 2 more match: narrow them down, or raise --limit

  next: truegreen outbox redrive EVENT_ID --reason TEXT   (sends it again; see --help for filters)
  next: truegreen outbox discard EVENT_ID --reason TEXT   (gives it up for good)
`, bundle.out.String())
	})

	t.Run("SaysNothingOfMoreWhenThereIsNoMore", func(t *testing.T) {
		t.Parallel()

		bundle := setup(t)
		bundle.actions.parked = cli.OutboxParked{Events: []cli.OutboxParkedEvent{sampleParkedEvent()}, NumMatching: 1}
		require.Equal(t, cli.ExitGood, bundle.run(t, "outbox", "parked"))
		require.NotContains(t, bundle.out.String(), "more match")

		bundle = setup(t)
		require.Equal(t, cli.ExitGood, bundle.run(t, "outbox", "parked"))
		require.Equal(t, "nothing is parked\n", bundle.out.String())
	})

	t.Run("PrintsJSON", func(t *testing.T) {
		t.Parallel()

		bundle := setup(t)
		bundle.actions.parked = cli.OutboxParked{Events: []cli.OutboxParkedEvent{sampleParkedEvent()}, NumMatching: 3}
		require.Equal(t, cli.ExitGood, bundle.run(t, "outbox", "parked", "--json", "--limit=1"))
		require.JSONEq(t, `{"events": [`+sampleParkedEventJSON+`], "num_matching": 3, "num_more": 2}`, bundle.out.String())

		bundle = setup(t)
		require.Equal(t, cli.ExitGood, bundle.run(t, "outbox", "parked", "--json"))
		require.JSONEq(t, `{"events": [], "num_matching": 0, "num_more": 0}`, bundle.out.String())
	})

	t.Run("FindsThoseOfWhichNoReasonIsKnown", func(t *testing.T) {
		t.Parallel()

		bundle := setup(t)
		require.Equal(t, cli.ExitGood, bundle.run(t, "outbox", "parked", "--park-reason=unknown"), bundle.errOut.String())
		require.Equal(t, []string{"parked " + strings.Replace(noFilter, "ParkReason:", "ParkReason:unknown", 1) + " limit 50"}, bundle.actions.calls)
	})

	t.Run("PassesEveryFilterOn", func(t *testing.T) {
		t.Parallel()

		bundle := setup(t)
		require.Equal(t, cli.ExitGood, bundle.run(t, "outbox", "parked", "--stream=wallet", "--key=p-1/KRW", "--type=wallet.credited.v1",
			"--park-reason=row", "--error-class=ambiguous", "--parked-after=48h", "--parked-before=2026-11-09T11:00:00+09:00", "--limit=10000"))
		require.Len(t, bundle.actions.calls, 1)
		require.Contains(t, bundle.actions.calls[0], "parked {ErrorClass:ambiguous Key:p-1/KRW ParkedAfter:{Ago:48h0m0s At:0001-01-01 00:00:00 +0000 UTC} ParkedBefore:{Ago:0s At:2026-11-09 11:00:00 +0900")
		require.Contains(t, bundle.actions.calls[0], "} ParkReason:row Stream:wallet Type:wallet.credited.v1} limit 10000")
		require.Equal(t, "no parked event matches\n", bundle.out.String())
	})
}

func TestExecute_OutboxDecisions(t *testing.T) {
	t.Parallel()

	decided := cli.OutboxDecided{NumEvents: 3, Streams: []cli.OutboxDecidedStream{
		{Name: "agent", NumEvents: 1, ParkPolicy: cli.ParkPolicySkip},
		{Name: "wallet", NumEvents: 2, ParkPolicy: cli.ParkPolicyBlock},
	}}
	const warning = "stream agent (park policy skip): sent behind later ones of their keys, where a consumer that drops lower sequences drops them: 1 event"

	t.Run("RedriveSaysHowManyAndWarnsOfOrder", func(t *testing.T) {
		t.Parallel()

		bundle := setup(t)
		bundle.actions.decided = decided
		require.Equal(t, cli.ExitGood, bundle.run(t, "outbox", "redrive", firstEventID, secondEventID, "--reason= limits raised "), bundle.errOut.String())
		require.Equal(t, []string{
			"redrive {As:cli:ana Reason:limits raised Selection:{EventIDs:[" + firstEventID + " " + secondEventID + "] Filter:" + noFilter + "}}",
		}, bundle.actions.calls)
		require.Equal(t, []string{"database"}, bundle.groups)
		require.Equal(t, "redriven: 3 events (agent 1, wallet 2)\n  warning: "+warning+"\n  next: truegreen outbox status\n", bundle.out.String())
		require.Empty(t, bundle.errOut.String())
	})

	t.Run("RedriveWarnsOfNothingWhereKeysWaited", func(t *testing.T) {
		t.Parallel()

		bundle := setup(t)
		bundle.actions.decided = cli.OutboxDecided{NumEvents: 1, Streams: decided.Streams[1:]}
		require.Equal(t, cli.ExitGood, bundle.run(t, "outbox", "redrive", "--stream=wallet", "--reason=x"))
		require.NotContains(t, bundle.out.String(), "warning")
	})

	t.Run("DiscardSaysWhatTakesTheirPlaces", func(t *testing.T) {
		t.Parallel()

		for _, tc := range []struct {
			numMarkers int64
			outcome    string
			policy     string
		}{
			{0, "  stream wallet: a gap marker (truegreen.gap.v1) was appended in the place of each\n", cli.ParkPolicyBlock},
			{1, "  stream wallet: a gap marker (truegreen.gap.v1) was appended in the place of each, but for 1 that were gap markers themselves\n", cli.ParkPolicyBlock},
			{2, "  stream wallet: all were gap markers themselves, which leave none behind\n", cli.ParkPolicyBlock},
			{0, "  stream wallet (park policy skip): a gap marker (truegreen.gap.v1) takes the place of each; it did so when the event was parked, if it was\n", cli.ParkPolicySkip},
			{1, "  stream wallet (park policy skip): a gap marker (truegreen.gap.v1) takes the place of each; it did so when the event was parked, if it was, but for 1 that were gap markers themselves\n", cli.ParkPolicySkip},
			{2, "  stream wallet: all were gap markers themselves, which leave none behind\n", cli.ParkPolicySkip},
		} {
			bundle := setup(t)
			bundle.actions.decided = cli.OutboxDecided{
				NumEvents: 2, Streams: []cli.OutboxDecidedStream{{Name: "wallet", NumEvents: 2, NumMarkers: tc.numMarkers, ParkPolicy: tc.policy}},
			}
			require.Equal(t, cli.ExitGood, bundle.run(t, "outbox", "discard", "--type=wallet.credited.v1", "--reason=test data", "--as=bo"))
			require.Equal(t, []string{
				"discard {As:bo Reason:test data Selection:{EventIDs:[] Filter:" + strings.Replace(noFilter, "Type:", "Type:wallet.credited.v1", 1) + "}}",
			}, bundle.actions.calls)
			require.Equal(t, "discarded: 2 events (wallet 2)\n"+tc.outcome+"  next: truegreen outbox status\n", bundle.out.String())
		}
	})

	t.Run("DiscardSaysItOfEachStream", func(t *testing.T) {
		t.Parallel()

		bundle := setup(t)
		bundle.actions.decided = decided
		require.Equal(t, cli.ExitGood, bundle.run(t, "outbox", "discard", firstEventID, secondEventID, "--reason=x"))
		require.Equal(t, `discarded: 3 events (agent 1, wallet 2)
  stream agent (park policy skip): a gap marker (truegreen.gap.v1) takes the place of each; it did so when the event was parked, if it was
  stream wallet: a gap marker (truegreen.gap.v1) was appended in the place of each
  next: truegreen outbox status
`, bundle.out.String())
	})

	t.Run("PrintsJSON", func(t *testing.T) {
		t.Parallel()

		bundle := setup(t)
		bundle.actions.decided = decided
		require.Equal(t, cli.ExitGood, bundle.run(t, "outbox", "redrive", firstEventID, "--reason=x", "--json"))
		require.JSONEq(t, `{"act": "redrive", "dry_run": false, "events": [], "num_events": 3, "streams": [
			{"name": "agent", "num_events": 1, "num_markers": 0, "park_policy": "skip"},
			{"name": "wallet", "num_events": 2, "num_markers": 0, "park_policy": "block"}
		], "warnings": ["`+warning+`"]}`, bundle.out.String())
	})

	t.Run("PrintsTheRefusal", func(t *testing.T) {
		t.Parallel()

		bundle := setup(t)
		bundle.actions.err = errors.New("redrive events: event x is published")
		require.Equal(t, cli.ExitFailed, bundle.run(t, "outbox", "redrive", firstEventID, "--reason=x"))
		require.Equal(t, "truegreen: redrive events: event x is published\n", bundle.errOut.String())
		require.Empty(t, bundle.out.String())
	})
}

func TestExecute_OutboxDryRun(t *testing.T) {
	t.Parallel()

	t.Run("PrintsTheFirstAndCallsNothingElse", func(t *testing.T) {
		t.Parallel()

		bundle := setup(t)
		bundle.actions.decided = cli.OutboxDecided{
			Events: []cli.OutboxParkedEvent{sampleParkedEvent()}, NumEvents: 3, Streams: []cli.OutboxDecidedStream{{Name: "wallet", NumEvents: 3, ParkPolicy: cli.ParkPolicyBlock}},
		}
		require.Equal(t, cli.ExitGood, bundle.run(t, "outbox", "discard", firstEventID, "--dry-run"), bundle.errOut.String())
		require.Equal(t, []string{"preview discard {EventIDs:[" + firstEventID + "] Filter:" + noFilter + "}"}, bundle.actions.calls)
		require.Equal(t, `would be discarded: 3 events (wallet 3)

STREAM  EVENT ID                              KEY      SEQ  TYPE                PARKED    POLICY  REASON     CLASS      ERROR
wallet  0198f0a2-7c54-7d1e-9b6f-3f2a8c1d5e70  p-1/KRW  7    wallet.credited.v1  1h5m ago  block   permanent  permanent  too large
and 2 more

nothing was changed: this was a dry run
`, bundle.out.String())
	})

	t.Run("WarnsOfOrderBeforehand", func(t *testing.T) {
		t.Parallel()

		bundle := setup(t)
		bundle.actions.decided = cli.OutboxDecided{NumEvents: 1, Streams: []cli.OutboxDecidedStream{{Name: "agent", NumEvents: 1, ParkPolicy: cli.ParkPolicySkip}}}
		require.Equal(t, cli.ExitGood, bundle.run(t, "outbox", "redrive", "--stream=agent", "--dry-run", "--reason=x"))
		require.Contains(t, bundle.out.String(), "warning: stream agent")
	})

	t.Run("IsGoodWhenNothingMatches", func(t *testing.T) {
		t.Parallel()

		bundle := setup(t)
		require.Equal(t, cli.ExitGood, bundle.run(t, "outbox", "redrive", "--stream=agent", "--dry-run"))
		require.Equal(t, "nothing matches\n", bundle.out.String())

		bundle = setup(t)
		require.Equal(t, cli.ExitGood, bundle.run(t, "outbox", "redrive", "--stream=agent", "--dry-run", "--json"))
		require.JSONEq(t, `{"act": "redrive", "dry_run": true, "events": [], "num_events": 0, "streams": [], "warnings": []}`, bundle.out.String())
	})
}

func TestExecute_OutboxWrongUsage(t *testing.T) {
	t.Parallel()

	for name, tc := range map[string]struct {
		args []string
		err  string
	}{
		"NeitherIDsNorFilters":      {[]string{"redrive", "--reason=x"}, "say which events: EVENT_IDs, or at least one of --error-class, --key, --park-reason, --parked-after, --parked-before, --stream, --type"},
		"BothIDsAndFilters":         {[]string{"discard", firstEventID, "--stream=wallet", "--key=k", "--reason=x"}, "EVENT_IDs and filters do not go together: leave out --key, --stream or the EVENT_IDs"},
		"AnEmptyFilter":             {[]string{"redrive", "--stream=", "--reason=x"}, "--stream must not be empty; leave it out for all"},
		"AnEmptyFilterBesideOthers": {[]string{"redrive", "--stream=wallet", "--key=", "--reason=x"}, "--key must not be empty"},
		"AnEmptyID":                 {[]string{"redrive", "", "--reason=x"}, `EVENT_ID must look like 0198f0a2-7c54-7d1e-9b6f-3f2a8c1d5e70, got ""`},
		"AnIDThatIsNone":            {[]string{"redrive", firstEventID, "17", "--reason=x"}, `got "17"`},
		"AClassThatIsNone":          {[]string{"redrive", "--error-class=perm", "--reason=x"}, `--error-class must be one of ambiguous, infrastructure, permanent, row, got "perm"`},
		"AReasonOfParkingThatIsNot": {[]string{"redrive", "--park-reason=rows", "--reason=x"}, `--park-reason must be one of crash, permanent, row, unknown, got "rows"`},
		"ADayThatIsNoMoment":        {[]string{"redrive", "--parked-before=2026-11-09", "--reason=x"}, `--parked-before must be an instant such as 2026-11-09T02:00:00Z, or how long ago, such as 90m or 48h, got "2026-11-09"`},
		"NoTimeAgo":                 {[]string{"redrive", "--parked-after=0s", "--reason=x"}, "--parked-after must be an instant"},
		"ATimeAhead":                {[]string{"redrive", "--parked-after=-2h", "--reason=x"}, "--parked-after must be an instant"},
		"NoReason":                  {[]string{"redrive", firstEventID}, "--reason must be given, with 1 to 1000 characters, got 0"},
		"ABlankReason":              {[]string{"discard", firstEventID, "--reason=  "}, "--reason must be given, with 1 to 1000 characters, got 0"},
		"ABlankReasonOfADryRun":     {[]string{"discard", firstEventID, "--dry-run", "--reason=  "}, "--reason must be given"},
		"ALongReason":               {[]string{"discard", firstEventID, "--reason=" + strings.Repeat("é", 1001)}, "got 1001"},
		"NobodyDecides":             {[]string{"discard", firstEventID, "--reason=x", "--as= "}, "--as must be given"},
		"AFilterOfParked":           {[]string{"parked", "--type="}, "--type must not be empty"},
		"ALimitOfParked":            {[]string{"parked", "--limit=0"}, "--limit must be from 1 to 10000, got 0"},
		"AnArgumentOfParked":        {[]string{"parked", firstEventID}, "parked takes no argument"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			bundle := setup(t)
			require.Equal(t, cli.ExitWrongUsage, bundle.run(t, append([]string{"outbox"}, tc.args...)...))
			require.Contains(t, bundle.errOut.String(), tc.err)
			require.Empty(t, bundle.actions.calls, "nothing is done")
			require.Empty(t, bundle.out.String())
		})
	}

	t.Run("ALongReasonThatFitsIsFine", func(t *testing.T) {
		t.Parallel()

		bundle := setup(t)
		require.Equal(t, cli.ExitGood, bundle.run(t, "outbox", "discard", firstEventID, "--reason="+strings.Repeat("é", 1000)))
	})
}

func TestExecute_OutboxWaiting(t *testing.T) {
	t.Parallel()

	for _, verb := range []string{"redrive", "discard"} {
		t.Run("SaysWhatItWaitsForAfterASecond/"+verb, func(t *testing.T) {
			t.Parallel()

			synctest.Test(t, func(t *testing.T) {
				bundle := setup(t)
				bundle.actions.decisionTakes = 1100 * time.Millisecond
				require.Equal(t, cli.ExitGood, bundle.run(t, "outbox", verb, firstEventID, "--reason=x"))
				require.Equal(t, 1, strings.Count(bundle.errOut.String(), "a worker may still be delivering one of\nthem"))
				require.NotContains(t, bundle.out.String(), "waited", "what is printed for scripts stays clean")
			})
		})
	}

	t.Run("SaysNothingBefore", func(t *testing.T) {
		t.Parallel()

		synctest.Test(t, func(t *testing.T) {
			bundle := setup(t)
			bundle.actions.decisionTakes = 900 * time.Millisecond
			require.Equal(t, cli.ExitGood, bundle.run(t, "outbox", "redrive", firstEventID, "--reason=x"))
			require.Empty(t, bundle.errOut.String())
		})
	})
}
