package storetest_test

import (
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/agrenting/agrenting-go"
	"github.com/agrenting/agrenting-go/agrentingtest/storetest"
)

func TestMemoryStoreConforms(t *testing.T) {
	t.Parallel()
	s := agrenting.MemoryStore()
	storetest.Test(t, func(*testing.T) agrenting.Store { return s })
}

func TestMemoryStoresConformOneByOne(t *testing.T) {
	t.Parallel()
	storetest.Test(t, func(*testing.T) agrenting.Store { return agrenting.MemoryStore() })
}

func TestNamespaceConforms(t *testing.T) {
	t.Parallel()
	inner := agrenting.MemoryStore()
	storetest.Test(t, func(t *testing.T) agrenting.Store {
		t.Helper()
		s, err := agrenting.Namespace(inner, "agent-1")
		require.NoError(t, err)
		return s
	}, storetest.LongestName(55))
}

func openFolder(t *testing.T, folder string) agrenting.Store {
	t.Helper()
	s, err := agrenting.FileStore(folder)
	require.NoError(t, err)
	return s
}

// removeFile deletes a record of a file store.
func removeFile(folder string) storetest.Option {
	return storetest.Delete(func(t *testing.T, _ agrenting.Store, name string) {
		t.Helper()
		require.NoError(t, os.Remove(filepath.Join(folder, name+".record")))
	})
}

// goneFolder opens a store whose folder was removed.
func goneFolder(wrap func(t *testing.T, s agrenting.Store) agrenting.Store) storetest.Option {
	return storetest.Gone(func(t *testing.T) agrenting.Store {
		t.Helper()
		folder := filepath.Join(t.TempDir(), "store")
		s := wrap(t, openFolder(t, folder))
		_, err := s.Save(t.Context(), "key", []byte("x"), "")
		require.NoError(t, err)
		require.NoError(t, os.RemoveAll(folder))
		return s
	})
}

func TestFileStoreConforms(t *testing.T) {
	t.Parallel()
	folder := filepath.Join(t.TempDir(), "store")
	storetest.Test(t, func(t *testing.T) agrenting.Store {
		t.Helper()
		return openFolder(t, folder)
	}, removeFile(folder), goneFolder(func(_ *testing.T, s agrenting.Store) agrenting.Store { return s }))
}

func TestSealedFileStoreConforms(t *testing.T) {
	t.Parallel()
	folder, key := filepath.Join(t.TempDir(), "store"), agrenting.NewSealingKey()
	seal := func(t *testing.T, s agrenting.Store) agrenting.Store {
		t.Helper()
		sealed, err := agrenting.Sealed(s, "test", key)
		require.NoError(t, err)
		return sealed
	}
	storetest.Test(t, func(t *testing.T) agrenting.Store {
		t.Helper()
		return seal(t, openFolder(t, folder))
	}, removeFile(folder), goneFolder(seal))
}

func TestReadOnlyFolderConforms(t *testing.T) {
	t.Parallel()
	if runtime.GOOS == "windows" || os.Geteuid() == 0 {
		t.Log("nothing was tested: this user may write everywhere")
		return
	}
	folder := t.TempDir()
	require.NoError(t, os.Mkdir(filepath.Join(folder, "read-only"), 0o500))
	storetest.Test(t, func(t *testing.T) agrenting.Store {
		t.Helper()
		return openFolder(t, folder)
	}, storetest.ReadOnly(func(t *testing.T) agrenting.Store {
		t.Helper()
		return openFolder(t, filepath.Join(folder, "read-only"))
	}))
}
