package audit_test

// ledgerCorruptions break the laws of ledger and wallets.
func ledgerCorruptions() []corruption {
	const booking = "INSERT INTO ledger_txn (id, at, kind, reference) OVERRIDING SYSTEM VALUE VALUES (9999, now(), 'deposit', 'deposit/x');"
	const entries = "INSERT INTO ledger_entry (txn_id, account_id, amount_minor, at) VALUES "
	const unbalanced = "audit_ledger_balanced: ledger transaction 9999 (deposit/x)"
	return []corruption{
		{"ATransactionWithoutEntries", booking, []string{unbalanced}, "has no entries\n"},
		{
			"EntriesWithoutTransaction", entries + "(9999, {account cash}, 5, now()), (9999, {account house}, -5, now())",
			[]string{"audit_ledger_balanced: ledger transaction 9999"}, "has entries, but does not exist",
		},
		{
			"EntriesWithoutAccount", booking + entries + "(9999, 8888, 5, now()), (9999, 8889, -5, now())",
			[]string{unbalanced}, "account that does not exist",
		},
		{
			"EntriesThatDoNotBalance", booking + entries + "(9999, {account cash}, 5, now()), (9999, {account house}, -4, now())",
			[]string{unbalanced}, "entries sum to 1 KRW, not 0",
		},
		{
			"EntriesThatBalanceAcrossCurrencies",
			booking + "INSERT INTO ledger_account (id, currency, kind) OVERRIDING SYSTEM VALUE VALUES (9999, 'USD', 'cash');" +
				entries + "(9999, {account cash}, 5, now()), (9999, 9999, -5, now())",
			[]string{unbalanced}, "entries sum to -5 USD",
		},
		{
			"AnotherBalance", "UPDATE wallet SET balance_minor = balance_minor + 1 WHERE player_id = {player carol}",
			[]string{"audit_wallet_balanced: wallet of account {account carol}"}, "balance is 501, its entries sum to 500",
		},
		{
			"ABalanceOfNoEntries", "DELETE FROM ledger_entry WHERE txn_id = (SELECT txn_id FROM ledger_entry WHERE account_id = {account carol}); DELETE FROM ledger_txn WHERE NOT EXISTS (SELECT FROM ledger_entry WHERE txn_id = id)",
			[]string{"audit_wallet_balanced: wallet of account {account carol}"}, "balance is 500, its entries sum to 0; version is 1, it has 0 entries",
		},
		{
			"AnotherVersion", "UPDATE wallet SET version = version + 1 WHERE player_id = {player carol}",
			[]string{"audit_wallet_balanced: wallet of account {account carol}"}, "version is 2, it has 1 entries",
		},
		{
			"AnAccountWithoutWallet", "INSERT INTO ledger_account (id, currency, kind, player_id) OVERRIDING SYSTEM VALUE VALUES (9999, 'USD', 'player', {player carol})",
			[]string{"audit_wallet_balanced: account 9999"}, "has no wallet",
		},
		{
			"AWalletOnAnAccountOfNobody", "INSERT INTO wallet (account_id, currency, player_id) VALUES (9999, 'KRW', 9999)",
			[]string{"audit_wallet_balanced: wallet of account 9999"}, "is on no player's account",
		},
		{
			"AWalletInAnotherCurrency", "UPDATE wallet SET currency = 'USD' WHERE player_id = {player carol}",
			[]string{"audit_wallet_balanced: wallet of account {account carol}"}, "currency is USD, its account's is KRW",
		},
		{
			"AWalletOfAnotherPlayer", "UPDATE wallet SET player_id = 9999 WHERE player_id = {player carol}",
			[]string{"audit_wallet_balanced: wallet of account {account carol}"}, "player is 9999, its account's is {player carol}",
		},
		{
			"AWalletBelowItsFloor", "ALTER TABLE wallet DROP CONSTRAINT balance_not_below_floor; UPDATE wallet SET floor_minor = 501 WHERE player_id = {player carol}",
			[]string{"audit_wallet_floor: wallet of account {account carol}"}, "balance 500 is below the floor 501",
		},
	}
}

// originCorruptions tear apart what belongs together.
func originCorruptions() []corruption {
	const waiting = "audit_settlement_origin: run {run waiting_inputs}"
	const loser = "audit_settlement_origin: run {run all_delivered}, item {item all_delivered/carol}"
	return []corruption{
		{"AnItemWithoutRun", "DELETE FROM settlement_run WHERE id = {run awaiting_approval}", []string{"audit_settlement_origin: run {run awaiting_approval}, item {item awaiting_approval/bob}"}, "its run does not exist"},
		{"AnItemOfAnotherPeriod", "UPDATE settlement_item SET period_id = 9999 WHERE id = {item all_delivered/carol}", []string{loser}, "period is 9999, its run's is"},
		{"AnItemInAnotherCurrency", "UPDATE settlement_item SET currency = 'USD' WHERE id = {item all_delivered/carol}", []string{loser}, "currency is USD, its run's is KRW; currency is USD, its player's is KRW"},
		{"AnAdjustmentInARegularRun", "UPDATE settlement_item SET adj = 1 WHERE id = {item all_delivered/carol}", []string{loser}, "adj is 1, a regular run's is 0"},
		{"AnItemWithoutPlayer", "DELETE FROM player WHERE code = 'carol'", []string{loser}, "its player {player carol} does not exist"},
		{"APlayerOfAnotherCurrency", "UPDATE player SET currency = 'USD' WHERE code = 'carol'", []string{loser}, "currency is KRW, its player's is USD"},
		{"ARunWithoutPeriod", "DELETE FROM settlement_period WHERE id = (SELECT period_id FROM settlement_run WHERE id = {run waiting_inputs})", []string{waiting}, "its period or programme does not exist"},
		{"ARunInAnotherCurrency", "UPDATE settlement_run SET currency = 'USD' WHERE id = {run waiting_inputs}", []string{waiting}, "currency is USD, its programme's is KRW"},
		{
			"ARunWithTermsOfAnotherProgramme", `
			INSERT INTO programme_version (id, approved_at, approved_by, created_by, effective_from, programme_id, rules, rules_hash, version)
			OVERRIDING SYSTEM VALUE SELECT 9999, approved_at, approved_by, created_by, effective_from, 9999, rules, rules_hash, version FROM programme_version;
			UPDATE settlement_run SET version_id = 9999 WHERE id = {run waiting_inputs}`,
			[]string{waiting}, "its terms are not a version of its programme",
		},
		{"ARunWithoutTerms", "UPDATE settlement_run SET version_id = 9999 WHERE id = {run waiting_inputs}", []string{waiting}, "its terms are not a version of its programme\n"},
		{
			"ARunWithTermsThatNobodyApproved", `
			INSERT INTO programme_version (id, created_by, effective_from, programme_id, rules, rules_hash, version)
			OVERRIDING SYSTEM VALUE SELECT 9999, created_by, effective_from, programme_id, rules, rules_hash, 2 FROM programme_version;
			UPDATE settlement_run SET version_id = 9999 WHERE id = {run waiting_inputs}`,
			[]string{waiting}, "nobody approved its terms",
		},
	}
}

// jobCorruptions have a job that ended otherwise than its run.
func jobCorruptions() []corruption {
	const truthful = "ALTER TABLE settlement_run DROP CONSTRAINT job_end_agrees_with_outcome;"
	job := func(run, state string) string {
		return "UPDATE river_job SET finalized_at = now(), state = '" + state + "' WHERE id = 1000000 + {run " + run + "};"
	}
	end := func(run, jobEnd string) string {
		return "UPDATE settlement_run SET job_end = " + jobEnd + " WHERE id = {run " + run + "};"
	}
	found := func(run string) []string { return []string{"audit_settlement_job_end: run {run " + run + "}"} }
	return []corruption{
		{"ACompletedJobThatDeliveredNothing", truthful + end("none_delivered", "'completed'") + job("none_delivered", "completed"), found("none_delivered"), "its job ended as completed, but it is none_delivered; job"},
		{"ARecordOfCompletionThatDeliveredNothing", truthful + end("none_delivered", "'completed'") + "DELETE FROM river_job", found("none_delivered"), "its job ended as completed, but it is none_delivered"},
		{"ACompletedJobWithoutARecordThatDeliveredNothing", end("none_delivered", "NULL") + job("none_delivered", "completed"), found("none_delivered"), "is completed, but it is none_delivered"},
		{"ACompletedJobRecordedAsFailed", job("none_delivered", "completed"), found("none_delivered"), "its job ended as failed, but job"},
		{"AFailedJobThatDeliveredAll", truthful + end("all_delivered", "'failed'") + job("all_delivered", "discarded"), found("all_delivered"), "its job ended as failed, but it is all_delivered"},
		{"AFailedJobThatHadNothingToDeliver", truthful + end("no_eligible", "'failed'"), found("no_eligible"), "its job ended as failed, but it is no_eligible"},
		{"AFailedJobThatWithheldAll", truthful + end("all_withheld", "'failed'") + job("all_withheld", "cancelled"), found("all_withheld"), "its job ended as failed, but it is all_withheld"},
		{"ADiscardedJobRecordedAsCompleted", job("all_delivered", "discarded"), found("all_delivered"), "is discarded, but it is all_delivered"},
		{"ACancelledJobRecordedAsCompleted", job("partial", "cancelled"), found("partial"), "its job ended as completed, but job"},
		{"ACompletedJobRecordedAsFailedInPart", end("partial", "'failed'"), found("partial"), "its job ended as failed, but job"},
		{"ACompletedJobThatGaveUp", end("inputs_deadline", "'completed'"), found("inputs_deadline"), "its job ended as completed, but it is aborted for inputs_deadline"},
		{"ACompletedJobThatBrokeAnInvariant", "UPDATE settlement_run SET abort_reason = 'invariant' WHERE id = {run inputs_deadline};" + "UPDATE river_job SET finalized_at = now(), state = 'completed' WHERE id = 1000000 + {run inputs_deadline};", found("inputs_deadline"), "is completed, but it is aborted for invariant"},
		{"AFailedJobOfADecision", end("aborted", "'failed'"), found("aborted"), "its job ended as failed, but it is aborted for rejected"},
	}
}
