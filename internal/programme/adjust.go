package programme

import "truegreen/internal/money"

// Earlier is what a player was found to be owed for a period before.
type Earlier struct {
	Entitled    money.Minor // the sum of what was credited, or still may be
	Undelivered bool        // whether a part of it is not credited yet
}

// Less returns the entitlement without what was owed earlier, which is what an
// adjustment pays. The terms apply to the whole, so the rest may be below the
// minimum and is paid all the same.
//
// A player who is owed no more than before is excluded, and so is one whose earlier
// credit is still on its way: two claims at once could not be told apart when one of
// them fails. Who is excluded already stays so, for the reason that there is.
func (owed Entitlement) Less(earlier Earlier) Entitlement {
	owed.Before = earlier.Entitled
	switch {
	case owed.Reason != "":
		return owed
	case owed.Amount <= earlier.Entitled:
		owed.Amount, owed.Reason = 0, ReasonOverpaid
	case earlier.Undelivered:
		owed.Amount, owed.Reason = 0, ReasonEarlierUndelivered
	default:
		owed.Amount -= earlier.Entitled
	}
	return owed
}
