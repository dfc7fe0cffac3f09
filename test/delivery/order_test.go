package delivery_test

import (
	"context"
	"testing"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"truegreen/internal/outbox"
)

// TestOrder_OfAKeyThatIsHeldNoMoreInTheMiddleOfAPass has an event become due that
// a pass has gone by already, while the later one of its key is still ahead of
// that pass.
func TestOrder_OfAKeyThatIsHeldNoMoreInTheMiddleOfAPass(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		hold     string // what holds the key's first event back
		mend     func(context.Context, *testing.T, *testBundle, uuid.UUID)
		sequence []string
		skips    bool // also on streams where parked events are skipped
	}{
		"its delay is over": {
			hold: `UPDATE outbox_delivery SET attempts = 1, failures = 1, not_before = clock_timestamp() + interval '1 h' WHERE id = $1`,
			mend: func(ctx context.Context, t *testing.T, bundle *testBundle, id uuid.UUID) {
				t.Helper()
				bundle.exec(ctx, t, `UPDATE outbox_delivery SET not_before = clock_timestamp() WHERE id = $1`, bundle.row(ctx, t, id).ID)
			},
			sequence: []string{"1", "2"},
			skips:    true,
		},
		"it is redriven": {
			hold: `UPDATE outbox_delivery SET attempts = 1, parked_at = clock_timestamp(), park_reason = 'row' WHERE id = $1`,
			mend: func(ctx context.Context, t *testing.T, bundle *testBundle, id uuid.UUID) {
				t.Helper()
				bundle.redrive(ctx, t, id)
			},
			sequence: []string{"1", "2"},
		},
		"it is discarded": {
			hold: `UPDATE outbox_delivery SET attempts = 1, parked_at = clock_timestamp(), park_reason = 'row' WHERE id = $1`,
			mend: func(ctx context.Context, t *testing.T, bundle *testBundle, id uuid.UUID) {
				t.Helper()
				bundle.discard(ctx, t, id)
			},
			sequence: []string{"1 gap", "2"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ctx := t.Context()
			bundle := setup(ctx, t, withBatches(patient(), 1))
			keys := bundle.keys(ctx, t, 3)
			held := make(map[string]uuid.UUID)
			var streams []outbox.Stream
			for _, stream := range bundle.streams {
				if !stream.ParkedBlocks && !tc.skips {
					continue
				}
				streams = append(streams, stream)
				ids := bundle.stage(ctx, t, stream.Name, fact{key: keys[0]}, fact{key: keys[1]}, fact{key: keys[2]}, fact{key: keys[0]})
				held[stream.Name] = ids[0]
				bundle.exec(ctx, t, tc.hold, bundle.row(ctx, t, ids[0]).ID)
			}
			release := bundle.link.hold()
			defer release()
			bundle.start(ctx, t)
			bundle.await(ctx, t, "the passes have gone by", func() bool { return bundle.link.sent() == len(streams) })
			for _, stream := range streams {
				tc.mend(ctx, t, bundle, held[stream.Name])
			}
			release()
			bundle.sweep(ctx, t)
			for _, stream := range streams {
				bundle.await(ctx, t, "all of "+stream.Name+" has gone", func() bool {
					return bundle.states(ctx, t, stream)["published"] == 4 // with the marker of a discarded one
				})
				require.Equal(t, tc.sequence, bundle.sequence(ctx, t, stream, keys[0]), stream.Name)
			}
		})
	}
}
