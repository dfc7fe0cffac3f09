package natspublish_test

import (
	"context"
	"encoding/json"
	"strings"
	"testing"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"

	"truegreen/internal/outbox"
	"truegreen/internal/publish/natspublish"
)

// ways are the two ways to the broker: what it refuses must end the same on both.
func ways() map[string]func([]outbox.Event) []outbox.Event {
	return map[string]func([]outbox.Event) []outbox.Event{
		"batch":       func(events []outbox.Event) []outbox.Event { return events },
		"by itself":   maybeSent,
		"known batch": nil, // batches were taken before
	}
}

// TestPublisher_Publish_Refusals lets real servers refuse, for every reason that
// they have.
func TestPublisher_Publish_Refusals(t *testing.T) {
	t.Parallel()

	tooLarge := func(events []outbox.Event) {
		events[5].Payload = json.RawMessage(`"` + strings.Repeat("x", 6000) + `"`)
	}
	for name, tc := range map[string]struct {
		cause  func(context.Context, *testing.T, *testBundle)
		change func([]outbox.Event)
		says   string
		want   map[outbox.Class]int // of 400
	}{
		"message over the stream's limit": {
			cause: func(ctx context.Context, t *testing.T, bundle *testBundle) {
				bundle.update(ctx, t, func(config *jetstream.StreamConfig) { config.MaxMsgSize = 5000 })
			},
			change: tooLarge,
			says:   "maximum allowed",
			want:   map[outbox.Class]int{outbox.ClassPermanent: 1, outbox.ClassAcknowledged: 399},
		},
		"headers over the server's limit": {
			cause: func(context.Context, *testing.T, *testBundle) {},
			change: func(events []outbox.Event) {
				events[5].Headers = map[string]string{"tenant": strings.Repeat("x", 70_000)}
			},
			says: "header size exceeds",
			want: map[outbox.Class]int{outbox.ClassPermanent: 1, outbox.ClassAcknowledged: 399},
		},
		"subjects taken away": {
			cause: func(ctx context.Context, t *testing.T, bundle *testBundle) {
				bundle.update(ctx, t, func(config *jetstream.StreamConfig) { config.Subjects = []string{"elsewhere"} })
			},
			says: "no stream takes this subject",
			want: map[outbox.Class]int{outbox.ClassInfrastructure: 400},
		},
		"subjects of another stream": {
			cause: func(ctx context.Context, t *testing.T, bundle *testBundle) {
				bundle.update(ctx, t, func(config *jetstream.StreamConfig) { config.Subjects = []string{"elsewhere"} })
				_, err := bundle.js.CreateStream(ctx, jetstream.StreamConfig{AllowAtomicPublish: true, Name: "THIEF", Subjects: []string{"truegreen.>"}})
				require.NoError(t, err)
			},
			says: "expected stream does not match",
			want: map[outbox.Class]int{outbox.ClassInfrastructure: 400},
		},
		"stream is full at once": {
			cause: func(ctx context.Context, t *testing.T, bundle *testBundle) {
				mustPublish(ctx, t, bundle.publisher, event("p-9", 1))
				bundle.update(ctx, t, func(config *jetstream.StreamConfig) { config.MaxMsgs = int64(bundle.numMessages(ctx)) })
			},
			says: "maximum messages exceeded",
			want: map[outbox.Class]int{outbox.ClassInfrastructure: 400},
		},
		"stream fills up": {
			cause: func(ctx context.Context, t *testing.T, bundle *testBundle) {
				bundle.update(ctx, t, func(config *jetstream.StreamConfig) { config.MaxMsgs = int64(bundle.numMessages(ctx)) + 100 })
			},
			says: "maximum messages exceeded",
			want: map[outbox.Class]int{outbox.ClassInfrastructure: 300, outbox.ClassAcknowledged: 100},
		},
		"stream is sealed": {
			cause: func(ctx context.Context, t *testing.T, bundle *testBundle) {
				bundle.update(ctx, t, func(config *jetstream.StreamConfig) { config.Sealed = true })
			},
			says: "sealed",
			want: map[outbox.Class]int{outbox.ClassInfrastructure: 400},
		},
		"stream is gone": {
			cause: func(ctx context.Context, t *testing.T, bundle *testBundle) {
				require.NoError(t, bundle.js.DeleteStream(ctx, "TRUEGREEN_WALLET"))
			},
			says: "no stream takes this subject",
			want: map[outbox.Class]int{outbox.ClassInfrastructure: 400},
		},
	} {
		for way, mark := range ways() {
			t.Run(name+"/"+way, func(t *testing.T) {
				t.Parallel()
				ctx := t.Context()
				bundle := setup(ctx, t)
				events := freshKeys(400)
				if tc.change != nil {
					tc.change(events)
				}
				if mark != nil {
					events = mark(events)
				} else {
					require.Equal(t, map[outbox.Class]int{outbox.ClassAcknowledged: 300}, classes(publish(ctx, bundle.publisher, freshKeys(300)...)))
				}
				tc.cause(ctx, t, bundle)
				outcomes := publish(ctx, bundle.publisher, events...)
				require.Equal(t, tc.want, classes(outcomes))
				for _, outcome := range outcomes {
					if outcome.Class != outbox.ClassAcknowledged {
						require.ErrorContains(t, outcome.Err, tc.says)
					}
				}
			})
		}
	}
}

// TestPublisher_Publish_Answers has what no server can be made to say on demand.
func TestPublisher_Publish_Answers(t *testing.T) {
	t.Parallel()

	for name, tc := range map[string]struct {
		answer string
		want   outbox.Class
	}{
		"another stream":  {`{"stream":"OTHER", "seq":1}`, outbox.ClassInfrastructure},
		"longer stream":   {`{"stream":"TRUEGREEN_WALLET2", "seq":1}`, outbox.ClassInfrastructure},
		"no sequence":     {`{"stream":"TRUEGREEN_WALLET", "seq":0}`, outbox.ClassInfrastructure},
		"other spelling":  {`{"seq": 1, "domain": "hub", "stream": "TRUEGREEN_WALLET"}`, outbox.ClassAcknowledged},
		"nothing":         {`{}`, outbox.ClassAmbiguous},
		"no JSON":         {`+OK`, outbox.ClassAmbiguous},
		"half":            {`{"stream":"TRUEGREEN_WALLET", "seq":1`, outbox.ClassAmbiguous},
		"too busy":        {`{"error":{"code":429,"err_code":10167,"description":"too many requests"}}`, outbox.ClassInfrastructure},
		"store fails":     {`{"error":{"code":503,"err_code":10077,"description":"disk"}}`, outbox.ClassInfrastructure},
		"too large":       {`{"error":{"code":400,"err_code":10054,"description":"size"},"stream":"TRUEGREEN_WALLET","seq":0}`, outbox.ClassPermanent},
		"refused for now": {`{"error":{"code":400,"err_code":10071,"description":"wrong last sequence"}}`, outbox.ClassRow},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			old := startOldServer(t)
			old.answer = tc.answer
			outcome := publish(t.Context(), connect(t, old.url), event("p-1", 1))[0]
			require.Equal(t, tc.want, outcome.Class, "%v", outcome.Err)
			if tc.want == outbox.ClassAcknowledged {
				require.Equal(t, "TRUEGREEN_WALLET/1", outcome.BrokerRef)
			}
		})
	}
}

// TestPublisher_Publish_Unsendable has an event of which the client makes no message.
func TestPublisher_Publish_Unsendable(t *testing.T) {
	t.Parallel()
	for way, mark := range ways() {
		if mark == nil {
			continue
		}
		t.Run(way, func(t *testing.T) {
			t.Parallel()
			ctx := t.Context()
			bundle := setup(ctx, t)
			events := mark(freshKeys(300))
			events[7].Type = "wallet.de posited.v1"
			outcomes := publish(ctx, bundle.publisher, events...)
			require.Equal(t, map[outbox.Class]int{outbox.ClassAcknowledged: 299, outbox.ClassPermanent: 1}, classes(outcomes))
			require.ErrorIs(t, outcomes[7].Err, outbox.ErrUnsendable)
			require.ErrorIs(t, outcomes[7].Err, nats.ErrBadSubject)
		})
	}
}

// TestPublisher_Publish_Silence lets nobody answer.
func TestPublisher_Publish_Silence(t *testing.T) {
	t.Parallel()

	for way, mark := range ways() {
		if mark == nil {
			mark = ways()["batch"]
		}
		connectKnown := func(ctx context.Context, t *testing.T, bundle *testBundle, url string) *natspublish.Publisher {
			t.Helper()
			publisher := connect(t, url)
			if way == "known batch" {
				mustPublish(ctx, t, publisher, freshKeys(300)...)
			}
			return publisher
		}
		t.Run("WithEverythingReceivedIsAmbiguous/"+way, func(t *testing.T) {
			t.Parallel()
			ctx := t.Context()
			bundle := setup(ctx, t)
			proxy := startProxy(t, bundle.server.URL(), nil)
			publisher := connectKnown(ctx, t, bundle, proxy.url)
			proxy.mute()
			got := classes(publishBriefly(ctx, publisher, mark(freshKeys(300))...))
			if way == "batch" {
				// Whether batches are taken was asked with the first event alone.
				require.Equal(t, map[outbox.Class]int{outbox.ClassAmbiguous: 1, outbox.ClassNotSent: 299}, got)
				return
			}
			// By itself, and no more at once than a slow broker could answer.
			require.Equal(t, map[outbox.Class]int{outbox.ClassAmbiguous: 64, outbox.ClassNotSent: 236}, got)
		})

		t.Run("OfAServerThatReadsNothingEndsTheCallAllTheSame/"+way, func(t *testing.T) {
			t.Parallel()
			ctx := t.Context()
			bundle := setup(ctx, t)
			proxy := startProxy(t, bundle.server.URL(), nil)
			publisher := connectKnown(ctx, t, bundle, proxy.url)
			proxy.freeze()
			events := mark(freshKeys(300))
			for i := range events {
				events[i].Payload = json.RawMessage(`"` + strings.Repeat("x", 100_000) + `"`)
			}
			result := make(chan []outbox.Outcome, 1)
			go func() { result <- publishBriefly(ctx, publisher, events...) }()
			require.Eventually(t, func() bool { return len(result) == 1 }, deadline, interval)
			got := classes(<-result)
			require.Zero(t, got[outbox.ClassAcknowledged], "%v", got)
			require.Zero(t, got[outbox.ClassPermanent]+got[outbox.ClassRow], "%v", got)
		})

		t.Run("OfAServerThatStopsIsNoFaultOfTheEvents/"+way, func(t *testing.T) {
			t.Parallel()
			ctx := t.Context()
			bundle := setup(ctx, t)
			publisher := connectKnown(ctx, t, bundle, bundle.server.URL())
			result := make(chan []outbox.Outcome, 1)
			go func() {
				var outcomes []outbox.Outcome
				for range 20 {
					outcomes = append(outcomes, publish(ctx, publisher, mark(freshKeys(300))...)...)
				}
				result <- outcomes
			}()
			require.Eventually(t, func() bool { return bundle.numMessages(ctx) > 600 }, deadline, interval)
			bundle.server.Stop()
			got := classes(<-result)
			require.Positive(t, got[outbox.ClassAcknowledged], "%v", got)
			require.Positive(t, got[outbox.ClassInfrastructure], "%v", got)
			require.Zero(t, got[outbox.ClassPermanent]+got[outbox.ClassRow], "%v", got)
		})
	}
}

// TestPublisher_Publish_Account lets the account have no room, and no way in.
func TestPublisher_Publish_Account(t *testing.T) {
	t.Parallel()

	const config = `
		jetstream: enabled
		accounts { A { jetstream { max_file: 2MB }, users [{user: truegreen, password: "s3cr3t-right"}] } }`
	for way, mark := range ways() {
		if mark == nil {
			mark = ways()["batch"]
		}
		t.Run("FullIsNoFaultOfTheEvents/"+way, func(t *testing.T) {
			t.Parallel()
			ctx := t.Context()
			url := strings.Replace(startServer(t, config), "nats://", "nats://truegreen:s3cr3t-right@", 1)
			publisher := connect(t, url)
			_, err := publisher.Provision(ctx, walletSpec())
			require.NoError(t, err)
			if way == "known batch" {
				mustPublish(ctx, t, publisher, chain(300)...)
			}
			events := mark(freshKeys(400))
			for i := range events {
				events[i].Payload = json.RawMessage(`"` + strings.Repeat("x", 10_000) + `"`)
			}
			outcomes := publishBriefly(ctx, publisher, events...)
			if way != "by itself" {
				// The broker notices in the midst of storing a batch, and says nothing: what
				// it has shows when its events are sent again.
				require.Equal(t, map[outbox.Class]int{outbox.ClassAmbiguous: 400}, classes(outcomes))
				outcomes = publish(ctx, publisher, maybeSent(events)...)
				require.True(t, outcomes[0].Duplicate)
			}
			got := classes(outcomes)
			require.Positive(t, got[outbox.ClassAcknowledged])
			require.Positive(t, got[outbox.ClassInfrastructure])
			require.Equal(t, 400, got[outbox.ClassAcknowledged]+got[outbox.ClassInfrastructure], "%v", got)
			require.ErrorContains(t, outcomes[399].Err, "resource limits exceeded for account")
		})

		t.Run("ClosedIsAnOutageThatSaysWhy/"+way, func(t *testing.T) {
			t.Parallel()
			ctx := t.Context()
			publisher := connect(t, strings.Replace(startServer(t, config), "nats://", "nats://truegreen:s3cr3t-wrong@", 1))
			outcomes := publish(ctx, publisher, mark(freshKeys(300))...)
			require.Equal(t, map[outbox.Class]int{outbox.ClassInfrastructure: 300}, classes(outcomes))
			require.ErrorIs(t, outcomes[0].Err, natspublish.ErrCredentials)
		})
	}

	t.Run("WithoutTheRightToPublishIsNamed", func(t *testing.T) {
		t.Parallel()
		ctx := t.Context()
		url := startServer(t, `
			jetstream: enabled
			authorization { users [
				{user: owner, password: o}
				{user: limited, password: l, permissions { publish { allow: ["$JS.API.>"] } }}
			] }`)
		owner := connect(t, strings.Replace(url, "nats://", "nats://owner:o@", 1))
		_, err := owner.Provision(ctx, walletSpec())
		require.NoError(t, err)
		limited := connect(t, strings.Replace(url, "nats://", "nats://limited:l@", 1))
		outcomes := publishBriefly(ctx, limited, event("p-1", 1))
		require.Equal(t, outbox.ClassAmbiguous, outcomes[0].Class)
		require.ErrorIs(t, outcomes[0].Err, nats.ErrPermissionViolation)
	})
}
