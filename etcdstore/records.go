package etcdstore

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"iter"
	"reflect"
	"strconv"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc/connectivity"

	"github.com/agrenting/agrenting-go"
)

// records is a store without a seal.
type records struct {
	client  *clientv3.Client
	name    string
	root    string // of all keys
	timeout time.Duration
}

func (r *records) String() string { return "etcdstore(" + r.name + ")" }

// ShowsNoSecret lets errors of the seal name the store.
func (*records) ShowsNoSecret() {}

const (
	// magic starts the first line of a value. A random word follows it, by which
	// a Save recognizes its value. The data comes after that line.
	magic = "agrenting-record 2 "
	// olderRecord is the key of the record of older builds, and olderMagic the
	// start of its value.
	olderRecord = "record"
	olderMagic  = `{"format":1,`
)

func revision(n int64) agrenting.Revision { return agrenting.Revision(strconv.FormatInt(n, 10)) }

// parse returns the modification revision, 0 for an empty one. ok is false for a
// revision that no store has returned.
func parse(rev agrenting.Revision) (n int64, ok bool) {
	if rev == "" {
		return 0, true
	}
	n, err := strconv.ParseInt(string(rev), 10, 64)
	return n, err == nil && n > 0 && revision(n) == rev
}

func (r *records) Load(ctx context.Context, name string) (agrenting.Record, error) {
	kv, _, err := r.get(ctx, "load", r.root+name)
	if err != nil {
		return agrenting.Record{}, err
	}
	return r.recordOf(ctx, name, kv)
}

// recordOf returns the record that is kept in kv, which is nil if there is none.
func (r *records) recordOf(ctx context.Context, name string, kv *mvccpb.KeyValue) (agrenting.Record, error) {
	if kv == nil {
		older, _, err := r.get(ctx, "load", r.root+olderRecord)
		switch {
		case err != nil:
			return agrenting.Record{}, err
		case bytes.HasPrefix(older.GetValue(), []byte(olderMagic)):
			return agrenting.Record{}, r.foreign(older)
		}
		return agrenting.Record{}, fmt.Errorf("%w: %v has no %q", agrenting.ErrNoRecord, r, name)
	}
	_, data, found := bytes.Cut(kv.Value, []byte("\n"))
	if !found || !bytes.HasPrefix(kv.Value, []byte(magic)) {
		return agrenting.Record{}, r.foreign(kv)
	}
	return agrenting.Record{Data: data, Revision: revision(kv.ModRevision)}, nil
}

func (r *records) foreign(kv *mvccpb.KeyValue) error {
	return fmt.Errorf("%w: %v: the value of %q is not a record of this version of the package; it was left intact. "+
		"Use the program that wrote it, or delete it and fill the store with a live key", agrenting.ErrInvalidRecord, r, kv.Key)
}

// get returns what is kept under a key, nil if there is nothing, and the revision
// at which it was.
func (r *records) get(ctx context.Context, what, key string) (kv *mvccpb.KeyValue, at int64, err error) {
	var resp *clientv3.GetResponse
	err = r.try(ctx, what, func(ctx context.Context) (err error) {
		resp, err = r.client.Get(ctx, key)
		return err
	})
	if err != nil {
		return nil, 0, err
	}
	if len(resp.Kvs) > 0 {
		kv = resp.Kvs[0]
	}
	return kv, resp.Header.Revision, nil
}

func (r *records) Save(ctx context.Context, name string, data []byte, previous agrenting.Revision) (agrenting.Revision, error) {
	if ctx.Err() != nil {
		return "", fmt.Errorf("%v: save: %w", r, context.Cause(ctx))
	}
	conflict := fmt.Errorf("%w: %v: %q has another revision", agrenting.ErrConflictingWrite, r, name)
	n, ok := parse(previous)
	if !ok {
		return "", conflict
	}
	key, value := r.root+name, magic+rand.Text()+"\n"+string(data)
	var saved agrenting.Revision
	err := r.try(ctx, "save", func(ctx context.Context) error {
		resp, err := r.client.Txn(ctx).
			If(clientv3.Compare(clientv3.ModRevision(key), "=", n)).
			Then(clientv3.OpPut(key, value)).
			Else(clientv3.OpGet(key)).
			Commit()
		switch {
		case errors.Is(err, rpctypes.ErrPermissionDenied):
			return fmt.Errorf("%w: %w", agrenting.ErrReadOnlyStore, err)
		case err != nil:
			return err
		case resp.Succeeded:
			saved = revision(resp.Header.Revision)
			return nil
		}
		kvs := resp.Responses[0].GetResponseRange().Kvs
		if len(kvs) == 0 || string(kvs[0].Value) != value {
			return conflict
		}
		saved = revision(kvs[0].ModRevision) // by an earlier attempt, whose response was lost
		return nil
	})
	return saved, err
}

// watchPause is the pause between two streams of a watch.
const watchPause = 250 * time.Millisecond

// Watch is a stream of etcd. It starts again after a compaction, or when it has no
// leader or no connection. It ends if the record cannot be loaded then.
func (r *records) Watch(ctx context.Context, name string) iter.Seq2[agrenting.Record, error] {
	return func(yield func(agrenting.Record, error) bool) {
		seen := int64(-1) // the revision of the last value, 0 for a missing record
		give := func(kv *mvccpb.KeyValue) bool {
			now := kv.GetModRevision()
			if now == seen {
				return true
			}
			rec, err := r.recordOf(ctx, name, kv)
			seen = now
			return ctx.Err() == nil && yield(rec, err) && !errors.Is(err, ErrUnavailable)
		}
		for ctx.Err() == nil {
			kv, at, err := r.get(ctx, "watch", r.root+name)
			if ctx.Err() != nil || err != nil {
				if ctx.Err() == nil {
					yield(agrenting.Record{}, err)
				}
				return
			}
			if !give(kv) || !r.follow(ctx, r.root+name, at+1, give) {
				return
			}
			sleep(ctx, jitter(watchPause))
		}
	}
}

// follow gives the changes of a key until the stream breaks or the connection is
// lost. It returns false if give does.
func (r *records) follow(ctx context.Context, key string, rev int64, give func(*mvccpb.KeyValue) bool) bool {
	ctx, cancel := context.WithCancel(clientv3.WithRequireLeader(ctx))
	w := clientv3.NewWatcher(r.client)
	if reflect.TypeOf(w) == reflect.TypeOf(r.client.Watcher) {
		// A shared watcher would keep the stream of a watch that is canceled
		// before it has begun.
		defer w.Close() //nolint:errcheck // returns why its streams ended
	} else {
		w = r.client // with a namespace
	}
	defer cancel()
	go func() { // etcd's client does not report that it has no connection any more
		r.client.ActiveConnection().WaitForStateChange(ctx, connectivity.Ready)
		cancel()
	}()
	for change := range w.Watch(ctx, key, clientv3.WithRev(rev)) {
		if change.Err() != nil {
			break
		}
		for _, last := range change.Events[max(0, len(change.Events)-1):] {
			kv := last.Kv
			if last.Type != clientv3.EventTypePut {
				kv = nil
			}
			if !give(kv) {
				return false
			}
		}
	}
	return true
}
