package main

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"compress/gzip"
	"io"
	"os"
	"path"
	"path/filepath"
	"time"
)

// entry is a file of an archive.
type entry struct {
	name    string
	mode    int64
	content []byte
}

// pack puts a program and the documents into an archive, all in one folder.
func pack(root, binary, name string, zipped bool, at time.Time) (archive []byte, extension string, err error) {
	var entries []entry
	add := func(from, as string, mode int64) error {
		b, err := os.ReadFile(from) // #nosec G304 -- a file of this project
		entries = append(entries, entry{name: path.Join(name, as), mode: mode, content: b})
		return err
	}
	if err := add(binary, filepath.Base(binary), 0o755); err != nil {
		return nil, "", err
	}
	for _, d := range documents {
		if err := add(filepath.Join(root, d), path.Base(d), 0o644); err != nil {
			return nil, "", err
		}
	}
	if zipped {
		archive, err = zipOf(entries, at)
		return archive, ".zip", err
	}
	archive, err = tarOf(entries, at)
	return archive, ".tar.gz", err
}

// tarOf has nothing of the machine in it: no owners, one time, the order given.
func tarOf(entries []entry, at time.Time) ([]byte, error) {
	var out bytes.Buffer
	gz, err := gzip.NewWriterLevel(&out, gzip.BestCompression)
	if err != nil {
		return nil, err
	}
	w := tar.NewWriter(gz)
	for _, e := range entries {
		h := &tar.Header{
			Typeflag: tar.TypeReg, Name: e.name, Mode: e.mode, Size: int64(len(e.content)),
			ModTime: at, Format: tar.FormatUSTAR,
		}
		if err := w.WriteHeader(h); err != nil {
			return nil, err
		}
		if _, err := w.Write(e.content); err != nil {
			return nil, err
		}
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	if err := gz.Close(); err != nil {
		return nil, err
	}
	return out.Bytes(), nil
}

func zipOf(entries []entry, at time.Time) ([]byte, error) {
	var out bytes.Buffer
	w := zip.NewWriter(&out)
	for _, e := range entries {
		h := &zip.FileHeader{Name: e.name, Method: zip.Deflate, Modified: at.UTC()}
		h.SetMode(os.FileMode(e.mode)) // #nosec G115 -- 0644 or 0755
		f, err := w.CreateHeader(h)
		if err != nil {
			return nil, err
		}
		if _, err := io.Copy(f, bytes.NewReader(e.content)); err != nil {
			return nil, err
		}
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	return out.Bytes(), nil
}
