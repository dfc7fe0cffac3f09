package devstack_test

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"hash/crc32"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"truegreen/internal/devstack"
)

func TestFetch(t *testing.T) {
	t.Parallel()

	const major = 15

	t.Run("GetsProgramsThatRunAndKeepsThem", func(t *testing.T) {
		t.Parallel()

		ctx := t.Context()
		repository := newRepository(t)
		cache := makeDir(t)
		bin, err := devstack.Fetch(ctx, cache, repository.server.URL, major)
		require.NoError(t, err)
		server, _ := start(ctx, t, devstack.PostgresConfig{BinDir: bin, DataDir: makeDir(t)})
		require.Equal(t, 1, query[int](ctx, t, server.URL(devstack.MainDatabase), "SELECT 1"))

		again, err := devstack.Fetch(ctx, cache, repository.server.URL, major)
		require.NoError(t, err)
		require.Equal(t, bin, again)
		require.Equal(t, int64(1), repository.numJars.Load())
		require.Len(t, entriesOf(t, cache), 1)
	})

	t.Run("MayHappenSeveralTimesAtOnce", func(t *testing.T) {
		t.Parallel()

		repository := newRepository(t)
		cache := makeDir(t)
		var group sync.WaitGroup
		for range 3 {
			group.Go(func() {
				bin, err := devstack.Fetch(t.Context(), cache, repository.server.URL, major)
				assert.NoError(t, err)
				assert.FileExists(t, filepath.Join(bin, "postgres"))
			})
		}
		group.Wait()
		require.Len(t, entriesOf(t, cache), 1)
	})

	t.Run("RefusesAnArchiveThatWasChanged", func(t *testing.T) {
		t.Parallel()

		repository := newRepository(t)
		repository.sum = strings.Repeat("0", 64)
		cache := makeDir(t)
		_, err := devstack.Fetch(t.Context(), cache, repository.server.URL, major)
		require.ErrorContains(t, err, "checksums do not match")
		require.Empty(t, entriesOf(t, cache))
	})

	t.Run("ReportsARepositoryThatHasNone", func(t *testing.T) {
		t.Parallel()

		empty := httptest.NewServer(http.NotFoundHandler())
		t.Cleanup(empty.Close)
		cache := makeDir(t)
		_, err := devstack.Fetch(t.Context(), cache, empty.URL, major)
		require.ErrorContains(t, err, "fetch Postgres 15.")
		require.Empty(t, entriesOf(t, cache))
	})

	t.Run("ReportsARepositoryThatIsNotThere", func(t *testing.T) {
		t.Parallel()

		gone := httptest.NewServer(http.NotFoundHandler())
		gone.Close()
		_, err := devstack.Fetch(t.Context(), makeDir(t), gone.URL, major)
		require.ErrorContains(t, err, "unable to connect to "+gone.URL)
	})

	t.Run("EndsWithItsContext", func(t *testing.T) {
		t.Parallel()

		ctx, cancel := context.WithCancel(t.Context())
		release := make(chan struct{})
		slow := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
			cancel()
			<-release
		}))
		t.Cleanup(slow.Close)
		cache := makeDir(t)
		_, err := devstack.Fetch(ctx, cache, slow.URL, major)
		require.ErrorIs(t, err, context.Canceled)

		close(release)
		require.Eventually(t, func() bool { return len(entriesOf(t, cache)) == 0 }, deadline, interval)
	})

	t.Run("KnowsNoOtherVersions", func(t *testing.T) {
		t.Parallel()

		_, err := devstack.Fetch(t.Context(), makeDir(t), "", 14)
		require.ErrorContains(t, err, "version 14 can't be fetched")
	})
}

// repository serves one archive under every name: programs that call the
// installed ones.
type repository struct {
	numJars atomic.Int64
	server  *httptest.Server
	sum     string
}

func newRepository(t *testing.T) *repository {
	t.Helper()
	installed := devstack.InstalledDirs(t.Context())
	require.NotEmpty(t, installed)
	jar := makeJar(t, installed[0])
	sum := sha256.Sum256(jar)
	r := &repository{sum: hex.EncodeToString(sum[:])}
	r.server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, request *http.Request) {
		if strings.HasSuffix(request.URL.Path, ".sha256") {
			_, _ = w.Write([]byte(r.sum))
			return
		}
		r.numJars.Add(1)
		_, _ = w.Write(jar)
	}))
	t.Cleanup(r.server.Close)
	return r
}

func makeJar(t *testing.T, installed string) []byte {
	t.Helper()
	var packed bytes.Buffer
	archive := tar.NewWriter(&packed)
	for _, program := range []string{"initdb", "pg_ctl", "postgres"} {
		script := fmt.Sprintf("#!/bin/sh\nexec '%s' \"$@\"\n", filepath.Join(installed, program))
		require.NoError(t, archive.WriteHeader(&tar.Header{
			Mode: 0o755, Name: "bin/" + program, Size: int64(len(script)), Typeflag: tar.TypeReg,
		}))
		_, err := archive.Write([]byte(script))
		require.NoError(t, err)
	}
	require.NoError(t, archive.Close())

	var jar bytes.Buffer
	writer := zip.NewWriter(&jar)
	entry, err := writer.Create("postgres.txz")
	require.NoError(t, err)
	_, err = entry.Write(wrapXZ(packed.Bytes()))
	require.NoError(t, err)
	require.NoError(t, writer.Close())
	return jar.Bytes()
}

// wrapXZ puts up to 64 KiB into the xz format, uncompressed.
func wrapXZ(data []byte) []byte {
	sum := func(part []byte) []byte {
		return binary.LittleEndian.AppendUint32(nil, crc32.ChecksumIEEE(part))
	}
	pad := func(part []byte) []byte {
		return append(part, make([]byte, (4-len(part)%4)%4)...)
	}
	flags := []byte{0, 1} // sums are CRC-32

	file := append([]byte{0xfd, '7', 'z', 'X', 'Z', 0}, flags...)
	file = append(file, sum(flags)...)

	header := []byte{2, 0, 0x21, 1, 0x16, 0, 0, 0} // one filter, LZMA2
	block := slices.Concat(header, sum(header))
	block = append(block, 1) // a chunk that is not compressed
	block = binary.BigEndian.AppendUint16(block, uint16(len(data)-1))
	block = append(block, data...)
	block = append(block, 0)
	unpadded := len(block) + crc32.Size
	file = append(file, pad(block)...)
	file = append(file, sum(data)...)

	index := []byte{0, 1}
	index = binary.AppendUvarint(index, uint64(unpadded))
	index = pad(binary.AppendUvarint(index, uint64(len(data))))
	index = append(index, sum(index)...)
	file = append(file, index...)

	footer := binary.LittleEndian.AppendUint32(nil, uint32(len(index)/4-1))
	footer = append(footer, flags...)
	file = append(file, sum(footer)...)
	file = append(file, footer...)
	return append(file, 'Y', 'Z')
}

func entriesOf(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	names := make([]string, 0, len(entries))
	for _, entry := range entries {
		names = append(names, entry.Name())
	}
	return names
}
