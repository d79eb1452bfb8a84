package k8sstore

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/util/connrotation"
	"k8s.io/client-go/util/flowcontrol"

	"github.com/agrenting/agrenting-go"
)

const (
	// SecretType is the type of the Secrets.
	SecretType corev1.SecretType = "agrenting.com/record" // #nosec G101 -- a type
	// Label is the label of the Secrets. Its value is the name of the store.
	Label = "agrenting.com/store"

	// dataKey is where a Secret has the data of the record.
	dataKey = "record"
	// writeAnnotation has a random word, by which a Save recognizes what it has written.
	writeAnnotation = "agrenting.com/write"
)

// records is a store without a seal.
type records struct {
	client          rest.Interface
	limiter         flowcontrol.RateLimiter
	conns           *connrotation.ConnectionTracker
	namespace, name string
	timeout         time.Duration
}

func (r *records) String() string { return "k8sstore(" + r.namespace + "/" + r.name + ")" }

// ShowsNoSecret lets errors of the seal name the store.
func (*records) ShowsNoSecret() {}

func (r *records) close() { r.conns.CloseAll() }

// secretName returns the name of the Secret of a record. The first dot ends the name of
// the store, so Secrets of different stores or records have different names.
func (r *records) secretName(name string) (string, error) {
	if len(validation.IsDNS1123Subdomain(name)) > 0 {
		return "", fmt.Errorf("%v: invalid record name %q", r, name)
	}
	return r.name + "." + name, nil
}

// revision returns the revision of a Secret, which is empty for nil. The UID is part of it,
// because a Secret that was deleted and created again is another one. The word of the write
// is part of it, because etcd repeats resource versions after a backup was restored.
func revision(s *corev1.Secret) agrenting.Revision {
	if s == nil {
		return ""
	}
	return agrenting.Revision(string(s.UID) + "." + s.ResourceVersion + "." + s.Annotations[writeAnnotation])
}

func (r *records) Load(ctx context.Context, name string) (agrenting.Record, error) {
	secret, err := r.secretName(name)
	if err != nil {
		return agrenting.Record{}, err
	}
	current, err := r.load(ctx, "load", secret)
	if err != nil {
		return agrenting.Record{}, err
	}
	return r.recordOf(secret, current)
}

// load returns a Secret, nil if there is none.
func (r *records) load(ctx context.Context, what, secret string) (current *corev1.Secret, err error) {
	err = r.try(ctx, what, secret, func(ctx context.Context) (err error) {
		current, err = r.get(ctx, secret)
		return err
	})
	return current, err
}

// recordOf returns the record that is kept in a Secret, which is nil if there is none.
func (r *records) recordOf(secret string, current *corev1.Secret) (agrenting.Record, error) {
	if current == nil {
		return agrenting.Record{}, fmt.Errorf("%w: Secret %q was not found in namespace %q", agrenting.ErrNoRecord, secret, r.namespace)
	}
	data, ok := current.Data[dataKey]
	if !ok || current.Type != SecretType || current.Labels[Label] != r.name {
		return agrenting.Record{}, fmt.Errorf("%w: %v: the Secret %q does not have the type %s, the label %s=%s, and the data %q; "+
			"it was left intact. Choose another Config.Name, or delete the Secret and fill the store with a live key",
			agrenting.ErrInvalidRecord, r, secret, SecretType, Label, r.name, dataKey)
	}
	return agrenting.Record{Data: data, Revision: revision(current)}, nil
}

// secrets makes a request for Secrets of the namespace. client-go does not repeat it, try
// does.
func (r *records) secrets(verb string) *rest.Request {
	return r.client.Verb(verb).Namespace(r.namespace).Resource("secrets").MaxRetries(0)
}

// send makes a request when the limiter admits it, and decodes the response into out. If
// there is no response in time, send closes the connections of the store, because the
// network may have cut them silently.
func (r *records) send(ctx context.Context, req *rest.Request, out *corev1.Secret) error {
	if err := r.limiter.Wait(ctx); err != nil {
		return err
	}
	began := time.Now()
	err := req.Do(ctx).Into(out)
	if err != nil && errors.Is(ctx.Err(), context.DeadlineExceeded) && time.Since(began) >= min(maxSilence, r.timeout/(2*firstAttempt)) {
		r.conns.CloseAll()
	}
	return err
}

// get asks once for a Secret. It returns nil if there is none.
func (r *records) get(ctx context.Context, secret string) (*corev1.Secret, error) {
	var current corev1.Secret
	err := r.send(ctx, r.secrets("GET").Name(secret), &current)
	switch {
	case isMissing(err):
		return nil, nil //nolint:nilnil // nil is a missing Secret
	case err != nil:
		return nil, err
	}
	return complete(&current)
}

// complete refuses a Secret that could not be updated safely: without a resource version,
// the API server replaces whatever there is.
func complete(s *corev1.Secret) (*corev1.Secret, error) {
	if s.UID == "" || s.ResourceVersion == "" {
		return nil, errors.New("the API server returned a Secret without a UID or a resource version")
	}
	return s, nil
}

// isMissing reports whether err is the API server's response for a missing object. The 404
// of a proxy is not.
func isMissing(err error) bool {
	return apierrors.IsNotFound(err) && !apierrors.IsUnexpectedServerError(err)
}

func (r *records) Save(ctx context.Context, name string, data []byte, previous agrenting.Revision) (agrenting.Revision, error) {
	if ctx.Err() != nil {
		return "", fmt.Errorf("%v: save: %w", r, context.Cause(ctx))
	}
	secret, err := r.secretName(name)
	if err != nil {
		return "", err
	}
	word := rand.Text()
	var saved agrenting.Revision
	err = r.try(ctx, "save", secret, func(ctx context.Context) error {
		current, err := r.get(ctx, secret)
		if err != nil {
			return err
		}
		if current != nil {
			if _, err = r.recordOf(secret, current); err != nil {
				return err
			}
		}
		switch {
		case current != nil && current.Annotations[writeAnnotation] == word:
			saved = revision(current) // by an earlier attempt, whose response was lost or late
			return nil
		case revision(current) != previous:
			return r.conflict(secret)
		}
		saved, err = r.put(ctx, secret, current, data, word)
		return err
	})
	return saved, err
}

func (r *records) conflict(secret string) error {
	return fmt.Errorf("%w: %v: the Secret %q has another revision", agrenting.ErrConflictingWrite, r, secret)
}

// put writes the data to a Secret, if it is still the current one. nil creates it. A 409 is
// returned unchanged: it may come from an earlier attempt that was slow, or be about another
// object, such as a ResourceQuota. The next attempt finds out.
func (r *records) put(ctx context.Context, secret string, current *corev1.Secret, data []byte, word string) (agrenting.Revision, error) {
	var req *rest.Request
	if current == nil {
		req = r.secrets("POST")
		current = &corev1.Secret{
			ObjectMeta: metav1.ObjectMeta{Name: secret, Labels: map[string]string{Label: r.name}},
			Type:       SecretType, Data: map[string][]byte{},
		}
	} else {
		req = r.secrets("PUT").Name(secret)
	}
	if current.Annotations == nil {
		current.Annotations = map[string]string{}
	}
	current.Annotations[writeAnnotation] = word
	current.Data[dataKey] = data
	var saved corev1.Secret
	err := r.send(ctx, req.Body(current), &saved)
	switch {
	case isMissing(err) && current.UID != "":
		return "", r.conflict(secret)
	case isDenied(err):
		return "", fmt.Errorf("%w: %w", agrenting.ErrReadOnlyStore, err)
	case err != nil:
		return "", err
	}
	if _, err := complete(&saved); err != nil {
		return "", err
	}
	return revision(&saved), nil
}
