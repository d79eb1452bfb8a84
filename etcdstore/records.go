package etcdstore

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"strconv"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/agrenting/agrenting-go"
)

// records is the key store without the seal.
type records struct{ *database }

func (r *records) key() string { return r.root + "record" }

// document is what etcd keeps. Write is random, and by it a write whose answer
// was lost is found again.
type document struct {
	Format int             `json:"format"`
	Write  string          `json:"write"`
	Record json.RawMessage `json:"record"`
}

const documentFormat = 1

func (r *records) decode(kv *mvccpb.KeyValue) (agrenting.KeyRecord, error) {
	var doc document
	switch err := json.Unmarshal(kv.Value, &doc); {
	case err != nil:
		return agrenting.KeyRecord{}, fmt.Errorf("%w: %v: what is stored at %q is damaged, or not from here",
			agrenting.ErrInvalidCredential, r, r.key())
	case doc.Format != documentFormat:
		return agrenting.KeyRecord{}, fmt.Errorf("%w: %v: what is stored at %q has format %d and this program knows %d; "+
			"use the program that wrote it, or a newer one", agrenting.ErrInvalidCredential, r, r.key(), doc.Format, documentFormat)
	}
	rec, err := agrenting.DecodeKeyRecord(doc.Record)
	if err != nil {
		return agrenting.KeyRecord{}, fmt.Errorf("%v: %w", r, err)
	}
	return rec, nil
}

// writeOf is the name of the write that a value came by.
func writeOf(kv *mvccpb.KeyValue) string {
	var doc document
	if json.Unmarshal(kv.Value, &doc) != nil {
		return ""
	}
	return doc.Write
}

func revision(n int64) agrenting.Revision { return agrenting.Revision(strconv.FormatInt(n, 10)) }

// parseRevision is 0 for the revision of an empty store. ok is false for what no
// store has ever given out.
func parseRevision(rev agrenting.Revision) (n int64, ok bool) {
	if rev == "" {
		return 0, true
	}
	n, err := strconv.ParseInt(string(rev), 10, 64)
	return n, err == nil && n > 0 && revision(n) == rev
}

func (r *records) Load(ctx context.Context) (agrenting.KeyRecord, agrenting.Revision, error) {
	resp, err := r.get(ctx, "load", r.key())
	if err != nil {
		return agrenting.KeyRecord{}, "", err
	}
	if len(resp.Kvs) == 0 {
		return agrenting.KeyRecord{}, "", fmt.Errorf("%w: %v has no record", agrenting.ErrNoCredential, r)
	}
	rec, err := r.decode(resp.Kvs[0])
	if err != nil {
		return agrenting.KeyRecord{}, "", err
	}
	return rec, revision(resp.Kvs[0].ModRevision), nil
}

func (r *records) Save(ctx context.Context, rec agrenting.KeyRecord, previous agrenting.Revision) (agrenting.Revision, error) {
	if err := ctx.Err(); err != nil {
		return "", fmt.Errorf("%v: save: %w", r, context.Cause(ctx))
	}
	prev, ok := parseRevision(previous)
	if !ok {
		return "", fmt.Errorf("%w: %v: the record has another revision", agrenting.ErrConflictingWrite, r)
	}
	plain, err := rec.Encode()
	if err != nil {
		return "", fmt.Errorf("%v: save: %w", r, err)
	}
	doc := document{Format: documentFormat, Write: rand.Text(), Record: plain}
	value, err := json.Marshal(doc)
	if err != nil {
		return "", fmt.Errorf("%v: save: the record cannot be encoded", r)
	}
	var saved int64
	asked := false
	err = r.try(ctx, "save", func(ctx context.Context, unsure bool) error {
		asked = true
		resp, err := r.client.Txn(ctx).
			If(clientv3.Compare(clientv3.ModRevision(r.key()), "=", prev)).
			Then(clientv3.OpPut(r.key(), string(value))).
			Else(clientv3.OpGet(r.key())).
			Commit()
		switch {
		case err != nil:
			return writeError(err)
		case resp.Succeeded:
			saved = resp.Header.Revision
			return nil
		case unsure:
			saved, err = r.find(ctx, doc.Write, prev, resp.Responses[0].GetResponseRange().Kvs)
			return err
		default:
			return &storeError{agrenting.ErrConflictingWrite, "the record has another revision"}
		}
	})
	if err != nil {
		if asked && errors.Is(err, ErrUnavailable) {
			err = fmt.Errorf("%w: %w", ErrUnknownOutcome, err)
		}
		return "", err
	}
	return revision(saved), nil
}

// find tells what replaced the revision prev: the write of that name, whose
// answer was lost, or another one. Only one write can have done it.
func (r *records) find(ctx context.Context, write string, prev int64, now []*mvccpb.KeyValue) (int64, error) {
	conflict := &storeError{agrenting.ErrConflictingWrite, "the record has another revision"}
	unknown := &storeError{ErrUnknownOutcome, "the history of the record is compacted"}
	if len(now) == 0 {
		return 0, unknown // deleted, by hand
	}
	kv := now[0]
	if writeOf(kv) == write {
		return kv.ModRevision, nil
	}
	if prev == 0 {
		resp, err := r.client.Get(ctx, r.key(), clientv3.WithRev(kv.CreateRevision))
		switch {
		case err != nil && transient(err):
			return 0, err
		case err != nil || len(resp.Kvs) == 0:
			return 0, unknown
		case writeOf(resp.Kvs[0]) == write:
			return kv.CreateRevision, nil
		}
		return 0, conflict
	}
	events, stop := r.watch(ctx, r.key(), clientv3.WithRev(prev+1))
	defer stop()
	for resp := range events {
		switch {
		case resp.CompactRevision != 0:
			return 0, unknown
		case resp.Err() != nil:
			return 0, resp.Err()
		case len(resp.Events) > 0 && writeOf(resp.Events[0].Kv) == write:
			return resp.Events[0].Kv.ModRevision, nil
		case len(resp.Events) > 0:
			return 0, conflict
		}
	}
	return 0, context.DeadlineExceeded
}

const (
	// resync is how often a watch looks for itself, in case that nobody tells.
	resync = time.Minute
	// maxWatchPause bounds the pause between two attempts of a watch.
	maxWatchPause = 5 * time.Second
)

func (r *records) Watch(ctx context.Context) iter.Seq2[agrenting.KeyRecord, error] {
	return func(yield func(agrenting.KeyRecord, error) bool) {
		w := watching{records: r, yield: yield}
		for pause := minPause; ctx.Err() == nil; pause = min(2*pause, maxWatchPause) {
			before := w.seen
			err := w.once(ctx)
			if w.left || ctx.Err() != nil {
				return
			}
			if err != nil && !yield(agrenting.KeyRecord{}, err) {
				return
			}
			if w.seen != before {
				pause = minPause
			}
			_ = sleep(ctx, jitter(pause)) // the loop looks at ctx
		}
	}
}

// watching is one sequence.
type watching struct {
	*records
	yield func(agrenting.KeyRecord, error) bool
	seen  int64 // the revision yielded last
	left  bool  // the consumer has had enough
}

// once loads the record and follows its changes until the watch breaks. That the
// watch broke is no error; that the record cannot be loaded is.
func (w *watching) once(ctx context.Context) error {
	resp, err := w.get(ctx, "watch", w.key())
	if err != nil {
		return err
	}
	if len(resp.Kvs) > 0 {
		w.give(resp.Kvs[0])
	}
	if w.left {
		return nil
	}
	events, stop := w.watch(ctx, w.key(), clientv3.WithRev(resp.Header.Revision+1))
	defer stop()
	look := time.NewTimer(jitter(resync))
	defer look.Stop()
	for {
		select {
		case change, ok := <-events:
			if !ok || change.Err() != nil {
				return nil // compacted, cut off, or without a leader: load again
			}
			for _, e := range lastOf(change.Events) {
				if e.Type == clientv3.EventTypePut && !w.give(e.Kv) {
					return nil
				}
			}
		case <-look.C:
			now, err := w.get(ctx, "watch", w.key())
			if err != nil {
				return err
			}
			if len(now.Kvs) > 0 && now.Kvs[0].ModRevision > w.seen {
				return nil // something was missed: begin anew
			}
			look.Reset(jitter(resync))
		}
	}
}

func lastOf[T any](all []T) []T { return all[max(0, len(all)-1):] }

// give yields a record that is newer than the last. It reports whether the
// consumer wants more.
func (w *watching) give(kv *mvccpb.KeyValue) bool {
	if kv.ModRevision <= w.seen {
		return true
	}
	w.seen = kv.ModRevision
	rec, err := w.decode(kv)
	w.left = !w.yield(rec, err)
	return !w.left
}
