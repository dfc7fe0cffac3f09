package sample

import (
	"fmt"
	"time"
)

// Programmes returns two programmes, in the form of the command programmes
// apply, that settle the complete weeks of the activity that the same config
// makes: one that pays by itself, and one that waits for somebody's approval.
//
// Fails with [fault.KindInvalid] for a config that cannot be used.
func Programmes(config Config) ([]byte, error) {
	config = config.WithDefaults()
	if err := config.Validate(); err != nil {
		return nil, err
	}
	zone, err := loadZone(config.TimeZone)
	if err != nil {
		return nil, err
	}
	end := config.End.In(zone)
	first := time.Date(end.Year(), end.Month(), end.Day()-config.Days, 0, 0, 0, 0, zone)
	return fmt.Appendf(nil, `# Terms of the sample: a share of each week's net loss, by VIP level.
programmes:
  - code: weekly-cashback
    kind: cashback
    currency: KRW
    period: weekly
    time_zone: %[1]s
    effective_from: %[2]s
    basis: game
    categories: {slots: 1000000, live: 500000, sports: 1000000, poker: 200000}
    tier_by: vip
    tiers: [{from: 0, rate_ppm: 50000}, {from: 3, rate_ppm: 100000}]
    cap: 1000000
    min_payout: 100
    less_promotions: true
    auto_approve_below: 1000000000
  - code: weekly-cashback-usd
    kind: cashback
    currency: USD
    period: weekly
    time_zone: %[1]s
    effective_from: %[2]s
    basis: game
    tiers: [{from: 100, rate_ppm: 50000}, {from: 100000, rate_ppm: 100000}]
    cap: 100000
    min_payout: 10
`, config.TimeZone, first.Format(time.DateOnly)), nil
}
