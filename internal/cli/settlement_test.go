package cli_test

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"truegreen/internal/cli"
)

func TestExecute_SettlementList(t *testing.T) {
	t.Parallel()

	t.Run("PrintsATable", func(t *testing.T) {
		t.Parallel()

		aborted := sampleRunIn("aborted", "")
		aborted.AbortReason, aborted.RunID = "inputs_deadline", 13
		bundle := setup(t)
		bundle.actions.runs = []cli.SettlementRun{aborted, sampleRun()}
		require.Equal(t, cli.ExitGood, bundle.run(t, "settlement", "list"))
		require.Equal(t, []string{"list {Limit:20 Programme:}"}, bundle.actions.calls)
		require.Equal(t, []string{"database"}, bundle.groups)
		require.Equal(t, `RUN  PROGRAMME        PERIOD    KIND     STATE                    EVALUATED  ELIGIBLE  CREDITED  FAILED  WITHHELD  CREDITED AMOUNT (MINOR UNITS)  FINISHED
13   weekly-cashback  2026-W45  regular  aborted/inputs_deadline  0          0         0         0       0         0 KRW                          -
12   weekly-cashback  2026-W45  regular  done/partial             1203       1003      990       10      3         1234500 KRW                    2026-11-09T02:10:05Z
`, bundle.out.String())
	})

	t.Run("ListsOneProgrammeUpToALimit", func(t *testing.T) {
		t.Parallel()

		bundle := setup(t)
		require.Equal(t, cli.ExitGood, bundle.run(t, "settlement", "list", "--programme=weekly-cashback", "--limit=1000"))
		require.Equal(t, []string{"list {Limit:1000 Programme:weekly-cashback}"}, bundle.actions.calls)
		require.Equal(t, "no runs\n", bundle.out.String())
	})

	t.Run("PrintsJSON", func(t *testing.T) {
		t.Parallel()

		bundle := setup(t)
		require.Equal(t, cli.ExitGood, bundle.run(t, "settlement", "list", "--json"))
		require.JSONEq(t, `{"runs": []}`, bundle.out.String())

		bundle = setup(t)
		bundle.actions.runs = []cli.SettlementRun{sampleRun()}
		require.Equal(t, cli.ExitGood, bundle.run(t, "settlement", "list", "--json"))
		require.JSONEq(t, `{"runs": [{`+sampleRunJSON+`}]}`, bundle.out.String())
	})
}

func TestExecute_SettlementDecisions(t *testing.T) {
	t.Parallel()

	verdict := " run 12 of weekly-cashback 2026-W45: planned\n  next: truegreen settlement show 12\n"
	for name, tc := range map[string]struct {
		args []string
		call string
		done string
	}{
		"Acknowledge": {[]string{"acknowledge", "12", "--reason= known "}, "acknowledge {As:cli:ana Reason:known RunID:12}", "acknowledged"},
		"Approve":     {[]string{"approve", "12", "--as=bo"}, "approve {As:bo Reason: RunID:12}", "approved"},
		"ApproveWhy":  {[]string{"approve", "12", "--as=bo", "--reason=looks right"}, "approve {As:bo Reason:looks right RunID:12}", "approved"},
		"Cancel":      {[]string{"cancel", "12", "--reason=wrong feed", "--as=bo"}, "cancel {As:bo Reason:wrong feed RunID:12}", "cancelled"},
		"Retry":       {[]string{"retry", "12", "--as=bo", "--reason= thawed "}, "retry {As:bo Reason:thawed RunID:12}", "retried by"},
		"Reject":      {[]string{"reject", "9223372036854775807", "--reason=too much"}, "reject {As:cli:ana Reason:too much RunID:9223372036854775807}", "rejected"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			bundle := setup(t)
			bundle.actions.run = sampleRunIn("planned", "")
			args := append([]string{"settlement"}, tc.args...)
			require.Equal(t, cli.ExitGood, bundle.run(t, args...), bundle.errOut.String())
			require.Equal(t, []string{tc.call}, bundle.actions.calls)
			require.Equal(t, []string{"database"}, bundle.groups)
			require.Equal(t, tc.done+verdict, bundle.out.String())

			bundle = setup(t)
			bundle.actions.run = sampleRun()
			require.Equal(t, cli.ExitGood, bundle.run(t, append(args, "--json")...), "the decision was taken, whatever the run came to")
			require.JSONEq(t, "{"+sampleRunJSON+"}", bundle.out.String())
		})
	}
}

func TestExecute_SettlementApprove_WithoutBudget(t *testing.T) {
	t.Parallel()

	bundle := setup(t)
	bundle.actions.run = sampleRunIn("aborted", "")
	bundle.actions.run.AbortReason = "budget"
	require.Equal(t, cli.ExitAborted, bundle.run(t, "settlement", "approve", "12"))
	require.Contains(t, bundle.out.String(), "not approved: run 12 of weekly-cashback 2026-W45: aborted/budget")
	// Whoever cancels a run wants it aborted.
	bundle = setup(t)
	bundle.actions.run = sampleRunIn("aborted", "")
	require.Equal(t, cli.ExitGood, bundle.run(t, "settlement", "cancel", "12", "--reason=wrong feed"))
}

func TestExecute_SettlementAccept(t *testing.T) {
	t.Parallel()

	bundle := setup(t)
	require.Equal(t, cli.ExitGood, bundle.run(t, "settlement", "accept", "--player=p-7", "--until=2026-12-31T00:00:00Z", "--reason=court order"), bundle.errOut.String())
	require.Equal(t, "accepted as 3: wallet_frozen for player p-7 until 2026-12-31T00:00:00Z\n  next: truegreen settlement accepted\n", bundle.out.String())

	bundle = setup(t)
	bundle.actions.accepted = []cli.SettlementAcceptance{
		{As: "ana", ExpiresAt: time.Date(2026, 12, 31, 0, 0, 0, 0, time.UTC), Failure: "wallet_frozen", ID: 3, Player: "p-7", Programme: "weekly", Reason: "court order"},
		{As: "ana", ExpiresAt: time.Date(2026, 12, 31, 0, 0, 0, 0, time.UTC), Failure: "wallet_frozen", ID: 4, MaxCredits: 20, Programme: "weekly", Reason: "daily"},
	}
	require.Equal(t, cli.ExitGood, bundle.run(t, "settlement", "accepted"))
	require.Equal(t, `ID  FAILURE        OF                                               UNTIL                 BY   REASON
3   wallet_frozen  player p-7 in programme weekly                   2026-12-31T00:00:00Z  ana  court order
4   wallet_frozen  at most 20 credits in a run of programme weekly  2026-12-31T00:00:00Z  ana  daily
`, bundle.out.String())

	bundle = setup(t)
	require.Equal(t, cli.ExitGood, bundle.run(t, "settlement", "unaccept", "3", "--reason=thawed"))
	require.Equal(t, []string{"unaccept 3 as cli:ana because thawed"}, bundle.actions.calls)
}

func TestExecute_SettlementAcknowledgeMany(t *testing.T) {
	t.Parallel()

	t.Run("TakesSeveralRuns", func(t *testing.T) {
		t.Parallel()

		bundle := setup(t)
		bundle.actions.run = sampleRun()
		require.Equal(t, cli.ExitGood, bundle.run(t, "settlement", "acknowledge", "12", "13", "--reason=known"))
		require.Equal(t, []string{"acknowledge {As:cli:ana Reason:known RunID:12}", "acknowledge {As:cli:ana Reason:known RunID:13}"}, bundle.actions.calls)
	})

	t.Run("ListsAllAndChangesNothingUntilTheirNumberIsGiven", func(t *testing.T) {
		t.Parallel()

		bundle := setup(t)
		bundle.actions.runs = []cli.SettlementRun{sampleRun(), sampleRun()}
		require.Equal(t, cli.ExitGood, bundle.run(t, "settlement", "acknowledge", "--all", "--reason=known", "--programme=x"))
		require.Equal(t, []string{"acknowledgeable {As:cli:ana Count:0 Outcomes:[] Programme:x Reason:known}"}, bundle.actions.calls)
		require.Contains(t, bundle.out.String(), "run 12 of weekly-cashback 2026-W45: done/partial")
		require.Contains(t, bundle.out.String(), "\nnothing was changed: add --count 2 to acknowledge these runs\n")

		bundle = setup(t)
		bundle.actions.runs = []cli.SettlementRun{sampleRun(), sampleRun()}
		require.Equal(t, cli.ExitGood, bundle.run(t, "settlement", "acknowledge", "--all", "--reason=known", "--count=2", "--outcome=partial,aborted"))
		require.Equal(t, []string{"acknowledge all {As:cli:ana Count:2 Outcomes:[partial aborted] Programme: Reason:known}"}, bundle.actions.calls)
		require.Contains(t, bundle.out.String(), "acknowledged run 12 of weekly-cashback 2026-W45: done/partial")
		require.NotContains(t, bundle.out.String(), "nothing")
	})
}

func TestExecute_SettlementShow(t *testing.T) {
	t.Parallel()

	detail := cli.SettlementDetail{
		SettlementRun: sampleRun(),
		Events: []cli.SettlementEvent{
			{Actor: "tick", At: time.Date(2026, 11, 9, 2, 0, 0, 0, time.UTC), Kind: "planned"},
			{Actor: "bo", At: time.Date(2026, 11, 9, 2, 5, 0, 0, time.UTC), Detail: "1250000 KRW", Kind: "approved", Reason: "looks right"},
		},
		TopReasons: []cli.SettlementReason{
			{Amount: 1234500, Delivery: "credited", Disposition: "eligible", NumItems: 990},
			{Disposition: "excluded", NumItems: 200, Reason: "no_tier"},
		},
		NumUndelivered: 13,
		Undelivered: []cli.SettlementUndelivered{
			{Amount: 12000, Delivery: "failed", Player: "p-77", Why: "wallet_frozen"},
			{Amount: 3500, Delivery: "withheld", Player: "p-1\n2", Why: "self_excluded"},
		},
	}

	t.Run("PrintsTheRunItsReasonsAndItsEvents", func(t *testing.T) {
		t.Parallel()

		bundle := setup(t)
		bundle.actions.detail = detail
		require.Equal(t, cli.ExitGood, bundle.run(t, "settlement", "show", "12"), "what it came to is told, not returned")
		require.Equal(t, []string{"show 12"}, bundle.actions.calls)
		require.Equal(t, `run 12 of weekly-cashback 2026-W45: done/partial; 1203 evaluated, 1003 eligible, 990 credited, 10 failed, 3 withheld, 200 excluded; eligible 1250000 KRW, credited 1234500 KRW, failed 15500 KRW (minor units)
  next: truegreen settlement retry 12
  next: truegreen settlement acknowledge 12 --reason TEXT

programme     weekly-cashback version 3 (cashback)
kind of run   regular
created by    cli:ana
approved by   bo
attempt       2 of 6
started       2026-11-09T02:00:00Z
finished      2026-11-09T02:10:05Z
acknowledged  -

DISPOSITION  DELIVERY  REASON   ITEMS  AMOUNT (MINOR UNITS)
eligible     credited  -        990    1234500 KRW
excluded     -         no_tier  200    0 KRW

NOT PAID  AMOUNT (MINOR UNITS)  DELIVERY  WHY
p-77      12000 KRW             failed    wallet_frozen
p-1 2     3500 KRW              withheld  self_excluded
and 11 more: truegreen settlement export 12 has all

AT                    EVENT     WHO   REASON       DETAIL
2026-11-09T02:00:00Z  planned   tick  -            -
2026-11-09T02:05:00Z  approved  bo    looks right  1250000 KRW
`, bundle.out.String())
	})

	t.Run("SaysWhatThereIsNotYet", func(t *testing.T) {
		t.Parallel()

		bundle := setup(t)
		bundle.actions.detail.SettlementRun = sampleRunIn("planned", "")
		require.Equal(t, cli.ExitGood, bundle.run(t, "settlement", "show", "12"))
		require.Contains(t, bundle.out.String(), "attempt       none yet\nstarted       -\n")
		require.Contains(t, bundle.out.String(), "\n\nnothing has happened yet\n")
		require.NotContains(t, bundle.out.String(), "DISPOSITION")
	})

	t.Run("CutsNothingOff", func(t *testing.T) {
		t.Parallel()

		bundle := setup(t)
		bundle.actions.detail = detail
		long := strings.Repeat("a detail that somebody needs to its end, ", 20) + "42"
		bundle.actions.detail.Events = []cli.SettlementEvent{{Actor: "tick", Detail: long, Kind: "aborted", Reason: long}}
		bundle.actions.detail.AbortDetail, bundle.actions.detail.State = long, "aborted"
		require.Equal(t, cli.ExitGood, bundle.run(t, "settlement", "show", "12"))
		require.Equal(t, 3, strings.Count(bundle.out.String(), long))
	})

	t.Run("SaysWhatOfTheBudgetIsUsed", func(t *testing.T) {
		t.Parallel()

		bundle := setup(t)
		bundle.actions.detail = detail
		bundle.actions.detail.Budget = &cli.SettlementBudget{Limit: 2000000, Used: 800000, Version: 4, Window: "2026-11"}
		require.Equal(t, cli.ExitGood, bundle.run(t, "settlement", "show", "12"))
		require.Contains(t, bundle.out.String(), "\nbudget        800000 of 2000000 KRW used or reserved in 2026-11 (version 4)\n")
	})

	t.Run("PrintsJSON", func(t *testing.T) {
		t.Parallel()

		bundle := setup(t)
		bundle.actions.detail = detail
		require.Equal(t, cli.ExitGood, bundle.run(t, "settlement", "show", "12", "--json"))
		require.JSONEq(t, `{`+sampleRunJSON+`, "budget": null,
			"events": [
				{"actor": "tick", "at": "2026-11-09T02:00:00Z", "detail": "", "kind": "planned", "reason": ""},
				{"actor": "bo", "at": "2026-11-09T02:05:00Z", "detail": "1250000 KRW", "kind": "approved", "reason": "looks right"}
			],
			"top_reasons": [
				{"amount": "1234500", "delivery": "credited", "disposition": "eligible", "num_items": 990, "reason": ""},
				{"amount": "0", "delivery": "", "disposition": "excluded", "num_items": 200, "reason": "no_tier"}
			],
			"num_undelivered": 13,
			"undelivered": [
				{"amount": "12000", "delivery": "failed", "player": "p-77", "why": "wallet_frozen"},
				{"amount": "3500", "delivery": "withheld", "player": "p-1\n2", "why": "self_excluded"}
			]
		}`, bundle.out.String())

		bundle = setup(t)
		bundle.actions.detail.SettlementRun = sampleRun()
		require.Equal(t, cli.ExitGood, bundle.run(t, "settlement", "show", "12", "--json"))
		require.JSONEq(t, `{`+sampleRunJSON+`, "budget": null, "events": [], "num_undelivered": 0, "top_reasons": [], "undelivered": []}`, bundle.out.String())
	})
}

func TestExecute_SettlementPreview(t *testing.T) {
	t.Parallel()

	preview := cli.SettlementPreview{
		Currency: "KRW", Eligible: 1003, EligibleAmount: 1250000, Evaluated: 1203, Excluded: 200, Kind: "cashback", Period: "2026-W45",
		Programme: "weekly-cashback", RunKind: "regular", Version: 3,
		TopReasons: []cli.SettlementReason{{Disposition: "excluded", NumItems: 200, Reason: "winner"}},
		Watermarks: []cli.SettlementWatermark{
			{At: new(time.Date(2026, 11, 9, 1, 0, 0, 0, time.UTC)), Needed: time.Date(2026, 11, 9, 0, 0, 0, 0, time.UTC), Reached: true, Source: "bets"},
			{Needed: time.Date(2026, 11, 9, 0, 0, 0, 0, time.UTC), Source: "cash"},
		},
	}

	t.Run("PrintsWhatARunWouldComeTo", func(t *testing.T) {
		t.Parallel()

		bundle := setup(t)
		bundle.actions.preview = preview
		require.Equal(t, cli.ExitGood, bundle.run(t, "settlement", "preview", "weekly-cashback", "2026-W45"))
		require.Equal(t, []string{"preview weekly-cashback 2026-W45"}, bundle.actions.calls)
		require.Equal(t, `preview of weekly-cashback 2026-W45 (cashback, version 3): 1203 evaluated, 1003 eligible, 200 excluded; eligible 1250000 KRW (minor units)
nothing was booked

INPUT  WATERMARK             NEEDED                REACHED
bets   2026-11-09T01:00:00Z  2026-11-09T00:00:00Z  yes
cash   never                 2026-11-09T00:00:00Z  no: the numbers may change

DISPOSITION  DELIVERY  REASON  ITEMS  AMOUNT (MINOR UNITS)
excluded     -         winner  200    0 KRW
`, bundle.out.String())
	})

	t.Run("SaysWhetherTheBudgetHasRoom", func(t *testing.T) {
		t.Parallel()

		for limit, text := range map[int64]string{
			1250400: "budget: 400 of 1250400 KRW used or reserved in 2026-11 (version 4); it fits\n",
			1250399: "budget: 400 of 1250399 KRW used or reserved in 2026-11 (version 4); a run of this would be aborted\n",
		} {
			bundle := setup(t)
			bundle.actions.preview = preview
			bundle.actions.preview.Budget = &cli.SettlementBudget{Limit: limit, Used: 400, Version: 4, Window: "2026-11"}
			require.Equal(t, cli.ExitGood, bundle.run(t, "settlement", "preview", "weekly-cashback", "2026-W45"))
			require.Contains(t, bundle.out.String(), "nothing was booked\n"+text)
			require.Equal(t, cli.ExitGood, bundle.run(t, "settlement", "preview", "weekly-cashback", "2026-W45", "--json"))
			require.Contains(t, bundle.out.String(), `"used": "400"`)
		}
	})

	t.Run("WhatOwesNothingFitsAnyBudget", func(t *testing.T) {
		t.Parallel()

		bundle := setup(t)
		bundle.actions.preview = preview
		bundle.actions.preview.EligibleAmount = 0
		bundle.actions.preview.Budget = &cli.SettlementBudget{Limit: 300, Used: 400, Version: 4, Window: "2026-11"} // it was lowered
		require.Equal(t, cli.ExitGood, bundle.run(t, "settlement", "preview", "weekly-cashback", "2026-W45"))
		require.Contains(t, bundle.out.String(), "(version 4); it fits\n")
	})

	t.Run("SaysWhatItIsOfASettledPeriod", func(t *testing.T) {
		t.Parallel()

		bundle := setup(t)
		bundle.actions.preview = preview
		bundle.actions.preview.RunKind = "adjustment"
		require.Equal(t, cli.ExitGood, bundle.run(t, "settlement", "preview", "weekly-cashback", "2026-W45"))
		require.Contains(t, bundle.out.String(), "preview of an adjustment of weekly-cashback 2026-W45 (cashback, version 3)")
	})

	t.Run("PrintsJSON", func(t *testing.T) {
		t.Parallel()

		bundle := setup(t)
		bundle.actions.preview = preview
		require.Equal(t, cli.ExitGood, bundle.run(t, "settlement", "preview", "weekly-cashback", "2026-W45", "--json"))
		require.JSONEq(t, `{
			"budget": null, "currency": "KRW", "eligible": 1003, "eligible_amount": "1250000", "evaluated": 1203, "excluded": 200, "kind": "cashback",
			"period": "2026-W45", "programme": "weekly-cashback", "run_kind": "regular", "version": 3,
			"top_reasons": [{"amount": "0", "delivery": "", "disposition": "excluded", "num_items": 200, "reason": "winner"}],
			"watermarks": [
				{"at": "2026-11-09T01:00:00Z", "needed": "2026-11-09T00:00:00Z", "reached": true, "source": "bets"},
				{"at": null, "needed": "2026-11-09T00:00:00Z", "reached": false, "source": "cash"}
			]
		}`, bundle.out.String())

		bundle = setup(t)
		require.Equal(t, cli.ExitGood, bundle.run(t, "settlement", "preview", "x", "y", "--json"))
		require.Contains(t, bundle.out.String(), `"top_reasons": []`)
		require.Contains(t, bundle.out.String(), `"watermarks": []`)
	})
}

func TestExecute_SettlementWrongUsage(t *testing.T) {
	t.Parallel()

	number := " must be a whole number from 1 to 9223372036854775807, got "
	reason := "--reason must be given, with 1 to 500 characters, got "
	for name, tc := range map[string]struct {
		args   []string
		errOut string
	}{
		"AcceptNobody":        {[]string{"accept", "--until=1h", "--reason=x"}, "--player or --programme must be given"},
		"AcceptAProgramme":    {[]string{"accept", "--programme=x", "--until=1h", "--reason=x"}, "--at-most N, above 0, belongs to --programme without --player, and is required there"},
		"AcceptManyOfOne":     {[]string{"accept", "--player=x", "--at-most=2", "--until=1h", "--reason=x"}, "--at-most N, above 0, belongs to --programme without --player, and is required there"},
		"AcceptForever":       {[]string{"accept", "--player=x", "--reason=x"}, `--until must be an instant such as 2026-12-31T00:00:00Z, or a time from now such as 720h, got ""`},
		"AcknowledgeAllOfOne": {[]string{"acknowledge", "1", "--all", "--reason=x"}, "RUN_IDs and --all do not go together"},
		"AcknowledgeCount":    {[]string{"acknowledge", "--all", "--count=0", "--reason=x"}, "--count must be above 0, got 0"},
		"AcknowledgeFiltered": {[]string{"acknowledge", "1", "--outcome=partial", "--reason=x"}, "--outcome goes with --all alone"},
		"AcknowledgeNothing":  {[]string{"acknowledge", "--reason=x"}, "acknowledge takes one RUN_ID or more, or --all"},
		"AcknowledgeNoReason": {[]string{"acknowledge", "1"}, reason + "0"},
		"ApproveAsNobody":     {[]string{"approve", "1", "--as= "}, "--as must be given, with 1 to 200 characters, got 0"},
		"ApproveMinus":        {[]string{"approve", "--", "-1"}, "RUN_ID" + number + `"-1"`},
		"ApproveNothing":      {[]string{"approve"}, "approve takes one RUN_ID, got 0"},
		"CancelNoReason":      {[]string{"cancel", "1", "--reason= "}, reason + "0"},
		"ListEmptyProgramme":  {[]string{"list", "--programme="}, "--programme must not be empty; leave it out for all"},
		"ListLimitLarge":      {[]string{"list", "--limit=1001"}, "--limit must be from 1 to 1000, got 1001"},
		"ListLimitZero":       {[]string{"list", "--limit=0"}, "--limit must be from 1 to 1000, got 0"},
		"PreviewNoPeriod":     {[]string{"preview", "x"}, "preview takes CODE and PERIOD, got 1"},
		"RejectLongReason":    {[]string{"reject", "1", "--reason=" + strings.Repeat("x", 501)}, reason + "501"},
		"RejectNoReason":      {[]string{"reject", "1"}, reason + "0"},
		"RejectWord":          {[]string{"reject", "all", "--reason=x"}, "RUN_ID" + number + `"all"`},
		"RunAsTooLong":        {[]string{"run", "x", "y", "--as=" + strings.Repeat("x", 201)}, "--as must be given, with 1 to 200 characters, got 201"},
		"RunNoPeriod":         {[]string{"run", "x"}, "run takes CODE and PERIOD, got 1"},
		"RunPeriodEmpty":      {[]string{"run", "x", ""}, "PERIOD must not be empty"},
		"RunTimeoutAlone":     {[]string{"run", "x", "y", "--timeout=1s"}, "--timeout needs --wait"},
		"RunTimeoutZero":      {[]string{"run", "x", "y", "--wait", "--timeout=0s"}, "--timeout must be above 0, got 0s"},
		"ShowLarge":           {[]string{"show", "9223372036854775808"}, "RUN_ID" + number + `"9223372036854775808"`},
		"ShowTwo":             {[]string{"show", "1", "2"}, "show takes one RUN_ID, got 2"},
		"ShowZero":            {[]string{"show", "0"}, "RUN_ID" + number + `"0"`},
		"Unknown":             {[]string{"frobnicate"}, `unknown command "frobnicate"; truegreen settlement has accept, accepted, acknowledge, adjust, approve, cancel, explain, export, list, preview, reject, retry, run, show, unaccept`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			path := "settlement " + tc.args[0]
			if name == "Unknown" {
				path = "settlement"
			}
			bundle := setup(t)
			require.Equal(t, cli.ExitWrongUsage, bundle.run(t, append([]string{"settlement"}, tc.args...)...))
			require.Equal(t, "truegreen: "+tc.errOut+"\nsee 'truegreen "+path+" --help'\n", bundle.errOut.String())
			require.Empty(t, bundle.out.String())
			require.Empty(t, bundle.actions.calls)
		})
	}
}
