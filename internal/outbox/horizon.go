package outbox

import "truegreen/internal/dbsqlc"

// maxSightings bounds how many claims a horizon remembers. Fewer only make the
// next claims look further back.
const maxSightings = 64

// horizon knows up to which place of a shard every event is visible, so that
// nothing can appear there any more, however late its transaction commits.
type horizon struct {
	safePlace int64
	sightings []sighting // in the order of their claims
}

// sighting is the last place of a claim, which is safe once every transaction that
// ran then has ended.
type sighting struct {
	place int64
	xmax  int64 // the first transaction number that the claim's snapshot did not know
}

// note learns from the last row of a claim.
func (horizon *horizon) note(last *dbsqlc.OutboxDeliveryClaimRow) {
	for len(horizon.sightings) > 0 && horizon.sightings[0].xmax <= last.SnapshotXmin {
		horizon.safePlace = max(horizon.safePlace, horizon.sightings[0].place)
		horizon.sightings = horizon.sightings[1:]
	}
	if len(horizon.sightings) < maxSightings {
		horizon.sightings = append(horizon.sightings, sighting{place: last.Place, xmax: last.SnapshotXmax})
	}
}
