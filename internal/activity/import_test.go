package activity_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"truegreen/internal/activity"
	"truegreen/internal/fault"
)

// fileOf writes lines as a file.
func fileOf(lines ...activity.Line) string {
	var file []byte
	for i := range lines {
		file = append(lines[i].AppendJSON(file), '\n')
	}
	return string(file)
}

// deposits is a file with a player on line 1 and one deposit per further line.
func deposits(numLines int) []activity.Line {
	lines := []activity.Line{playerLine("p-1", 0)}
	for i := 2; i <= numLines; i++ {
		lines = append(lines, depositLine(fmt.Sprintf("d-%d", i), "p-1", 1, i))
	}
	return lines
}

func zipped(t *testing.T, text string) string {
	t.Helper()
	var buffer bytes.Buffer
	writer := gzip.NewWriter(&buffer)
	_, err := writer.Write([]byte(text))
	require.NoError(t, err)
	require.NoError(t, writer.Close())
	return buffer.String()
}

func (b *testBundle) imported(ctx context.Context, name, file string, batchSize int) (activity.ImportResult, error) {
	return b.service.Import(ctx, b.db.Pool, name, strings.NewReader(file), activity.ImportOptions{BatchSize: batchSize})
}

func TestService_Import(t *testing.T) {
	t.Parallel()

	t.Run("AppliesPlainAndZippedFilesAndBlankLines", func(t *testing.T) {
		t.Parallel()
		ctx := t.Context()
		bundle := setup(ctx, t)
		file := "\n" + strings.ReplaceAll(fileOf(deposits(25)...), "\n", "\r\n  \n")
		for _, given := range []struct{ name, file string }{
			{"plain.jsonl", strings.TrimSpace(file)}, // no newline at the end
			{"-", zipped(t, file)},
			{"zipped.jsonl.gz", zipped(t, file)},
			{"two.gz", zipped(t, file[:100]) + zipped(t, file[100:])},
		} {
			result, err := bundle.imported(ctx, given.name, given.file, 10)
			require.NoError(t, err, given.name)
			require.Equal(t, int64(25), result.NumLines)
			require.Equal(t, int64(3), result.NumBatches)
		}
		bundle.requireBalance(ctx, t, "p-1", 24, 24)
	})

	t.Run("TakesAnEmptyFile", func(t *testing.T) {
		t.Parallel()
		ctx := t.Context()
		bundle := setup(ctx, t)
		result, err := bundle.imported(ctx, "empty.jsonl", "", 10)
		require.NoError(t, err)
		require.Zero(t, result)
	})

	t.Run("SaysHowFarItCame", func(t *testing.T) {
		t.Parallel()
		ctx := t.Context()
		bundle := setup(ctx, t)
		file := fileOf(deposits(25)...)
		var lines []int64
		var last activity.ImportProgress
		_, err := bundle.service.Import(ctx, bundle.db.Pool, "x", strings.NewReader(file), activity.ImportOptions{
			BatchSize: 10,
			Progress: func(progress activity.ImportProgress) {
				lines, last = append(lines, progress.NumLines), progress
			},
		})
		require.NoError(t, err)
		require.Equal(t, []int64{10, 20, 25}, lines)
		require.Equal(t, int64(len(file)), last.NumBytes)
	})

	t.Run("RefusesABatchSizeOutOfBounds", func(t *testing.T) {
		t.Parallel()
		ctx := t.Context()
		bundle := setup(ctx, t)
		for _, size := range []int{-1, activity.MaxBatchSize + 1} {
			_, err := bundle.imported(ctx, "x", "", size)
			require.True(t, fault.Is(err, fault.KindInvalid))
		}
	})
}

func TestService_Import_badLines(t *testing.T) {
	t.Parallel()

	const bad = 17 // the number of the bad line; batches are of ten
	mend := "; the last line applied is 10; once that is fixed, import the same file again"

	for name, tt := range map[string]struct{ line, reason string }{
		"NotJSON":        {`{"type":"deposit",`, `not JSON: {"type":"deposit",`},
		"InvalidUTF8":    {"{\"type\":\"void\",\"bet\":\"\xff\"}", `not valid UTF-8`},
		"NegativeAmount": {`{"type":"deposit","id":"d","player":"p-1","amount":-1,"at":"2026-11-02T01:00:00Z"}`, `amount must be above 0`},
		"UnknownPlayer":  {`{"type":"deposit","id":"d","player":"p-9","amount":1,"at":"2026-11-02T01:00:00Z"}`, `deposit d: player p-9 is not known`},
		"ReusedID":       {`{"type":"deposit","id":"d-3","player":"p-1","amount":2,"at":"2026-11-02T00:03:00Z"}`, `deposit d-3 is known with amount 1, this line says 2`},
		"ReusedInBatch":  {`{"type":"deposit","id":"d-12","player":"p-1","amount":2,"at":"2026-11-02T00:12:00Z"}`, `deposit d-12 is known with amount 1, this line says 2`},
		"UnknownField":   {`{"type":"void","bet":"b","why":"","at":"2026-11-02T00:12:00Z"}`, `field "why" is not known; there are agent, amount, at, bet, category, currency, id, parent, payout, player, rolling_ppm, source, stake, status, type, vip`},
		"TooLong":        {`{"type":"` + strings.Repeat("x", activity.MaxLineBytes) + `"}`, `longer than 65536 bytes`},
	} {
		t.Run("RollBackTheirBatchAndNoMore/"+name, func(t *testing.T) {
			t.Parallel()
			ctx := t.Context()
			bundle := setup(ctx, t)
			lines := strings.Split(fileOf(deposits(24)...), "\n")
			file := strings.Join(lines[:bad-1], "\n") + "\n" + tt.line + "\n" + strings.Join(lines[bad-1:], "\n")

			result, err := bundle.imported(ctx, "day.jsonl", file, 10)
			require.EqualError(t, err, "day.jsonl, line 17: "+tt.reason+mend)
			require.True(t, fault.Is(err, fault.KindInvalid))
			require.Equal(t, int64(10), result.NumLines)
			bundle.requireBalance(ctx, t, "p-1", 9, 9)
			requireBooksInOrder(ctx, t, bundle.db.Pool)

			// Mended, the same file applies, and what was applied before is known.
			result, err = bundle.imported(ctx, "day.jsonl", strings.Join(lines, "\n"), 10)
			require.NoError(t, err)
			require.Equal(t, activity.Result{NumApplied: 14, NumKnown: 10, NumLines: 24}, result.Result)
			bundle.requireBalance(ctx, t, "p-1", 23, 23)
		})
	}

	t.Run("CountBlankLines", func(t *testing.T) {
		t.Parallel()
		ctx := t.Context()
		bundle := setup(ctx, t)
		_, err := bundle.imported(ctx, "x.jsonl", "\n\n"+fileOf(playerLine("p-1", 0))+"\n"+fileOf(depositLine("d", "p-2", 1, 1)), 10)
		require.EqualError(t, err, "x.jsonl, line 5: deposit d: player p-2 is not known; no line of it is applied; once that is fixed, import the same file again")
	})
}

func TestService_Import_badFiles(t *testing.T) {
	t.Parallel()

	const mend = "; the last line applied is 10; once that is fixed, import the same file again"

	t.Run("SaysThatAZippedFileIsCutOff", func(t *testing.T) {
		t.Parallel()
		ctx := t.Context()
		bundle := setup(ctx, t)
		file := zipped(t, fileOf(deposits(24)...))
		_, err := bundle.imported(ctx, "x.gz", file[:len(file)-8], 10)
		require.ErrorContains(t, err, "the gzip data ends too early: the file is cut off")
		require.True(t, fault.Is(err, fault.KindInvalid))
		bundle.requireBalance(ctx, t, "p-1", 19, 19)
	})

	t.Run("SaysThatAZippedFileIsDamaged", func(t *testing.T) {
		t.Parallel()
		ctx := t.Context()
		bundle := setup(ctx, t)
		file := []byte(zipped(t, fileOf(deposits(24)...)))
		file[len(file)-6] ^= 0xff // of the checksum
		_, err := bundle.imported(ctx, "x.gz", string(file), 10)
		require.ErrorContains(t, err, "the gzip data is damaged: ")
		require.ErrorContains(t, err, "; the last line applied is 20; ")
	})

	t.Run("NamesTheFirstLinesThatAreRefused", func(t *testing.T) {
		t.Parallel()
		ctx := t.Context()
		bundle := setup(ctx, t)
		lines := []activity.Line{playerLine("p-1", 0), depositLine("d-1", "p-1", 100, 0), withdrawalLine("w-1", "p-1", 101, 1)}
		for i := range 14 {
			lines = append(lines, betLine(fmt.Sprintf("b-%d", i), "p-1", 60, 2))
		}
		result, err := bundle.imported(ctx, "x", "\n"+fileOf(lines...), 4)
		require.NoError(t, err)
		require.EqualValues(t, 14, result.NumRefused)
		require.Len(t, result.Refused, activity.MaxRefused)
		first, last := result.Refused[0], result.Refused[activity.MaxRefused-1]
		require.Equal(t, activity.Refused{Amount: 101, Balance: 100, ID: "w-1", Index: 2, Line: 4, Player: "p-1", Type: activity.TypeWithdrawal}, first)
		require.Equal(t, activity.Refused{Amount: 60, Balance: 40, ID: "b-9", Index: 0, Line: 14, Player: "p-1", Type: activity.TypeBet}, last)
	})

	t.Run("SaysWhatFollowsAZippedFile", func(t *testing.T) {
		t.Parallel()
		ctx := t.Context()
		bundle := setup(ctx, t)
		file := zipped(t, fileOf(deposits(24)...))
		for _, garbage := range []string{"x", "garbage", "more than ten bytes of garbage", "\x00\x00\x00\x00"} {
			_, err := bundle.imported(ctx, "x.gz", file+garbage, 10)
			require.ErrorContains(t, err, "the gzip data ends, and something else follows it in the file, starting with the bytes ")
			require.True(t, fault.Is(err, fault.KindInvalid))
		}
		_, err := bundle.imported(ctx, "x.gz", file+"\x1f\x8b\x08", 10)
		require.ErrorContains(t, err, "the gzip data ends too early: the file is cut off")
	})

	t.Run("TakesSeveralZippedFilesOneBehindTheOther", func(t *testing.T) {
		t.Parallel()
		ctx := t.Context()
		bundle := setup(ctx, t)
		lines := deposits(24)
		result, err := bundle.imported(ctx, "x.gz", zipped(t, fileOf(lines[:11]...))+zipped(t, "")+zipped(t, fileOf(lines[11:]...)), 10)
		require.NoError(t, err)
		require.EqualValues(t, 24, result.NumApplied)
	})

	t.Run("SaysThatAZippedFileIsNone", func(t *testing.T) {
		t.Parallel()
		ctx := t.Context()
		bundle := setup(ctx, t)
		_, err := bundle.imported(ctx, "x.gz", fileOf(deposits(5)...), 10)
		require.EqualError(t, err, "x.gz: not gzip, though its name says so; no line of it is applied; once that is fixed, import the same file again")
	})

	t.Run("PassesOnWhatReadingFailedWith", func(t *testing.T) {
		t.Parallel()
		ctx := t.Context()
		bundle := setup(ctx, t)
		cause := errors.New("disk is gone")
		source := io.MultiReader(strings.NewReader(fileOf(deposits(10)...)), iotest.ErrReader(cause))
		_, err := bundle.service.Import(ctx, bundle.db.Pool, "x", source, activity.ImportOptions{BatchSize: 10})
		require.ErrorIs(t, err, cause)
		require.EqualError(t, err, "x, line 11: read: disk is gone"+mend)
	})

	t.Run("StopsWhenCancelledThoughTheSourceBlocks", func(t *testing.T) {
		t.Parallel()
		bundle := setup(t.Context(), t)
		ctx, cancel := context.WithCancel(t.Context())
		source, writer := io.Pipe()
		defer func() { require.NoError(t, writer.Close()) }()
		go func() {
			_, _ = writer.Write([]byte(fileOf(deposits(10)...)))
		}()
		_, err := bundle.service.Import(ctx, bundle.db.Pool, "x", source, activity.ImportOptions{
			BatchSize: 10,
			Progress:  func(activity.ImportProgress) { cancel() },
		})
		require.ErrorIs(t, err, context.Canceled)
		require.EqualError(t, err, "x: wait for lines: context canceled"+mend)
	})

	t.Run("NamesTheLinesThatTheDatabaseDidNotTake", func(t *testing.T) {
		t.Parallel()
		ctx := t.Context()
		bundle := setup(ctx, t)
		db := &failingDB{Beginner: bundle.db.Pool, failFrom: 2}
		_, err := bundle.service.Import(ctx, db, "x", strings.NewReader(fileOf(deposits(25)...)), activity.ImportOptions{BatchSize: 10})
		require.EqualError(t, err, "x: apply lines 11 to 20: begin transaction: no connection"+mend)
	})
}

// failingDB refuses transactions from a given one on.
type failingDB struct {
	Beginner interface {
		Begin(ctx context.Context) (pgx.Tx, error)
	}
	failFrom int
	num      int
}

func (db *failingDB) Begin(ctx context.Context) (pgx.Tx, error) {
	db.num++
	if db.num >= db.failFrom {
		return nil, errors.New("no connection")
	}
	return db.Beginner.Begin(ctx)
}
