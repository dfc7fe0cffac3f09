// Package jobs holds the arguments of every kind of job: the wire format between
// whoever inserts a job and the worker that runs it, and nothing else.
//
// A shipped field is never renamed or given a new meaning; a new meaning is a new
// kind.
package jobs

// Queues, one per kind, so that a kind's backlog is no other kind's delay.
const (
	QueueMaintenance        = "maintenance"
	QueueOutboxAgent        = "outbox_agent"
	QueueOutboxRolling      = "outbox_rolling"
	QueueOutboxWallet       = "outbox_wallet"
	QueueSettlementCashback = "settlement_cashback"
	QueueSettlementLossback = "settlement_lossback"
	QueueSettlementRebate   = "settlement_rebate"
	QueueSettlementTick     = "settlement_tick"
)

// OutboxMaxAttempts is how often one publish job is tried before River discards
// it; the sweep then inserts a fresh one, so rows never depend on a job's life.
const OutboxMaxAttempts = 20
