package k8sstore

import (
	"context"
	"errors"
	"iter"
	"strconv"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/watch"

	"github.com/agrenting/agrenting-go"
)

const (
	// minWatchPause is the pause between two streams of a watch. It doubles up to
	// maxWatchPause while streams end early and yield nothing.
	minWatchPause = 250 * time.Millisecond
	maxWatchPause = 8 * time.Second
	// watchTime is how long the API server keeps a stream.
	watchTime = 5 * time.Minute
)

// Watch loads the record and follows its changes in streams of the API server. It
// resumes a stream that has ended where it has ended, and loads the record again if
// that is not possible. It ends if the record cannot be loaded then.
func (r *records) Watch(ctx context.Context, name string) iter.Seq2[agrenting.Record, error] {
	return func(yield func(agrenting.Record, error) bool) {
		secret, err := r.secretName(name)
		if err != nil {
			yield(agrenting.Record{}, err)
			return
		}
		var seen *agrenting.Revision // the last that was yielded, "" for a missing record
		f := follower{records: r, secret: secret, give: func(s *corev1.Secret) bool {
			now := revision(s)
			if seen != nil && *seen == now {
				return true
			}
			seen = &now
			rec, err := r.recordOf(secret, s)
			return ctx.Err() == nil && yield(rec, err)
		}}
		if err := f.follow(ctx); err != nil && ctx.Err() == nil {
			yield(agrenting.Record{}, err)
		}
	}
}

var (
	// errLeft means that the loop over a watch was left.
	errLeft = errors.New("left")
	// errAppeared means that a Secret that was missing may exist now.
	errAppeared = errors.New("appeared")
)

// follower follows the changes of a Secret.
type follower struct {
	*records

	secret string
	give   func(*corev1.Secret) bool // nil is a missing Secret; false ends the watch
}

// follow returns why the watch has ended, nil if the loop over it was left.
func (f *follower) follow(ctx context.Context) error {
	at := "" // the resource version to resume from; empty to load the Secret
	for pause := minWatchPause; ctx.Err() == nil; {
		if at == "" {
			current, err := f.load(ctx, "watch", f.secret)
			switch {
			case err != nil:
				return err
			case !f.give(current):
				return nil
			case current != nil:
				at = current.ResourceVersion
			}
		}
		began := time.Now()
		next, err := f.stream(ctx, at)
		switch {
		case errors.Is(err, errLeft):
			return nil
		case err != nil && !transient(err) && !apierrors.IsGone(err) && !apierrors.IsResourceExpired(err):
			return f.wrap("watch", f.secret, err)
		}
		if at = next; at != "" || errors.Is(err, errAppeared) || time.Since(began) > maxWatchPause {
			pause = minWatchPause
		}
		sleep(ctx, jitter(pause))
		pause = min(2*pause, maxWatchPause)
	}
	return nil
}

// stream gives the changes after the resource version at until the API server ends the
// stream. It returns the version to resume from, empty if the Secret has to be loaded
// again. at is empty for a Secret that was missing: the stream then begins with the
// Secret if it has been created since.
func (f *follower) stream(ctx context.Context, at string) (next string, err error) {
	if err := f.limiter.Wait(ctx); err != nil {
		return "", err
	}
	ctx, cancel := context.WithTimeout(quiet(ctx), watchTime+f.timeout)
	defer cancel()
	req := f.secrets("GET").Param("watch", "true").Param("allowWatchBookmarks", "true").
		Param("fieldSelector", "metadata.name="+f.secret).
		Param("timeoutSeconds", strconv.Itoa(int(jitter(watchTime-watchTime/4).Seconds())))
	if at != "" {
		req = req.Param("resourceVersion", at)
	}
	begin := time.AfterFunc(f.timeout, cancel) // the API server responds at once, even if nothing has changed
	w, err := req.Watch(ctx)
	begin.Stop()
	if err != nil {
		return "", err
	}
	defer w.Stop()
	for {
		var e watch.Event
		var ok bool
		select {
		case e, ok = <-w.ResultChan():
		case <-ctx.Done():
		}
		if !ok {
			return next, nil
		}
		s, isSecret := e.Object.(*corev1.Secret)
		switch {
		case e.Type == watch.Error:
			return "", apierrors.FromObject(e.Object)
		case !isSecret:
			return "", nil
		case e.Type == watch.Bookmark && at == "":
			continue // of a cache that may be behind what was loaded
		case e.Type == watch.Bookmark:
		case at == "":
			return "", errAppeared // perhaps in a cache that is behind what was loaded
		case e.Type == watch.Deleted:
			if !f.give(nil) {
				return "", errLeft
			}
		case !f.give(s):
			return "", errLeft
		}
		at, next = s.ResourceVersion, s.ResourceVersion
	}
}
