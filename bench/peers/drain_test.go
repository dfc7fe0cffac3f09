package peers_test

import (
	"testing"
)

const (
	rounds         = 3
	numEvents      = 100_000
	numRiverEvents = 20_000 // what is slow has fewer: a rate is what is compared
)

// The settings with which each peer was fastest in BenchmarkSettings.
func bestWatermill() watermillConfig {
	return watermillConfig{batchSize: 4000, numTopics: 4, progress: byOffset}
}

func bestPerMessage() watermillConfig {
	return watermillConfig{batchSize: 1000, numTopics: 32, perMessage: true, progress: byOffset}
}

func bestRiver() riverConfig { return riverConfig{numQueues: 1, numWorkers: 1000} }

// BenchmarkDrain publishes stored events with each relay in turns.
func BenchmarkDrain(b *testing.B) {
	ctx := b.Context()
	br := startBroker(b)
	relays := []struct {
		name      string
		numEvents int
		relay     relay
	}{
		{"truegreen", numEvents, newTruegreen(ctx, b, br)},
		{"watermill", numEvents, newWatermill(ctx, b, br, "WATERMILL", bestWatermill())},
		{"watermill_each", numEvents, newWatermill(ctx, b, br, "WATERMILL_EACH", bestPerMessage())},
		{"river", numRiverEvents, newRiver(ctx, b, br, "RIVER", bestRiver())},
	}
	figures := make(map[string][]float64)
	for b.Loop() {
		// The first round warms everybody up. Each round begins with another one.
		for round := range 1 + rounds {
			results := make(map[string]result)
			for turn := range relays {
				one := relays[(round+turn)%len(relays)]
				got := br.measure(ctx, b, one.relay, newEvents(round, one.numEvents))
				results[one.name] = got
				b.Logf("round %d: %s %.0f rows/s, %.1f µs of processor time per row, %.1f%% of the keys out of order",
					round, one.name, got.rate, got.cpuMicros, 100*got.unordered)
			}
			if round == 0 {
				continue
			}
			own := results["truegreen"]
			for name, got := range results {
				add := func(figure string, value float64) { figures[figure] = append(figures[figure], value) }
				add(name+"_rows/s", got.rate)
				add(name+"_cpu-µs/row", got.cpuMicros)
				add(name+"_keys_unordered_%", 100*got.unordered)
				if name != "truegreen" {
					add("truegreen/"+name, own.rate/got.rate)
					add(name+"/truegreen_cpu", got.cpuMicros/own.cpuMicros)
				}
			}
		}
	}
	b.ReportMetric(0, "ns/op")
	for name, values := range figures {
		b.ReportMetric(median(values), name)
	}
}

// BenchmarkSettings looks for the settings with which each peer is fastest.
func BenchmarkSettings(b *testing.B) {
	measure := func(b *testing.B, br *broker, measured relay, numEvents int) {
		b.Helper()
		var rates, cpu []float64
		for b.Loop() {
			got := br.measure(b.Context(), b, measured, newEvents(len(rates), numEvents))
			rates = append(rates, got.rate)
			cpu = append(cpu, got.cpuMicros)
		}
		b.ReportMetric(0, "ns/op")
		b.ReportMetric(median(cpu), "cpu-µs/row")
		b.ReportMetric(median(rates), "rows/s")
	}
	for _, config := range []watermillConfig{
		{batchSize: 100, numTopics: 1, progress: byOffset},
		{batchSize: 1000, numTopics: 1, progress: byOffset},
		{batchSize: 4000, numTopics: 1, progress: byOffset},
		{batchSize: 10000, numTopics: 1, progress: byOffset},
		{batchSize: 100, numTopics: 1, progress: byMark},
		{batchSize: 1000, numTopics: 1, progress: byMark},
		{batchSize: 4000, numTopics: 1, progress: byMark},
		{batchSize: 10000, numTopics: 1, progress: byMark},
		{batchSize: 100, numTopics: 1, progress: byDelete},
		{batchSize: 1000, numTopics: 1, progress: byDelete},
		{batchSize: 4000, numTopics: 1, progress: byDelete},
		{batchSize: 10000, numTopics: 1, progress: byDelete},
		{batchSize: 4000, numTopics: 1, progress: byOffset, std: true},
		{batchSize: 4000, numTopics: 4, progress: byOffset},
		{batchSize: 1000, numTopics: 4, progress: byOffset},
		{batchSize: 1000, numTopics: 16, progress: byOffset, perMessage: true},
		{batchSize: 1000, numTopics: 32, progress: byOffset, perMessage: true},
		{batchSize: 4000, numTopics: 1, progress: byDelete, std: true},
		{batchSize: 4000, numTopics: 4, progress: byDelete},
		{batchSize: 1000, numTopics: 4, progress: byDelete},
		{batchSize: 1000, numTopics: 16, progress: byDelete, perMessage: true},
	} {
		b.Run("watermill/"+config.String(), func(b *testing.B) {
			br := startBroker(b)
			measure(b, br, newWatermill(b.Context(), b, br, "WATERMILL", config), numEvents)
		})
	}
	for _, config := range []riverConfig{
		{numQueues: 1, numWorkers: 100},
		{numQueues: 1, numWorkers: 300},
		{numQueues: 1, numWorkers: 1000},
		{numQueues: 2, numWorkers: 300},
		{numQueues: 4, numWorkers: 100},
		{numQueues: 4, numWorkers: 300},
		{numQueues: 4, numWorkers: 1000},
	} {
		b.Run("river/"+config.String(), func(b *testing.B) {
			br := startBroker(b)
			measure(b, br, newRiver(b.Context(), b, br, "RIVER", config), numRiverEvents)
		})
	}
}
