package webhook

import (
	"context"
	"encoding/json"
	"net/http"
	"time"

	"github.com/agrenting/agrenting-go/internal/wire"
)

// A Delivery is a webhook with a valid signature. Its fields are the members that the
// platform's own client reads. If a member is missing or has another type, its field
// is zero. Body contains all other members. Most programs only use TaskID and Status,
// such as "completed".
type Delivery struct {
	// Event is the value of X-Webhook-Event, such as "task.completed". It is not
	// signed: anyone who has a valid body can send it with a different event.
	Event string
	// TaskID is the task in the signed body. If the body does not name a task, it is
	// the value of X-Webhook-Task-Id, and TaskIDSigned is false.
	TaskID       string
	TaskIDSigned bool

	// Status is the state of the task, such as "completed". It may be outdated,
	// because the webhook may be late or repeated.
	Status string
	// Output is the raw JSON of the task's result; nil if there is none.
	Output json.RawMessage
	// ErrorReason says why a task has failed, such as "timeout".
	ErrorReason string
	// ProgressPercent is from 0 to 100; nil if it is not given.
	ProgressPercent *float64
	ProgressMessage string
	// Created and Completed are when the task was created and completed; zero if that
	// is not known.
	Created, Completed time.Time

	// Body is the signed body as it arrived. It must not be changed.
	Body []byte
}

type contextKey struct{}

// FromContext returns the webhook of a request that has passed [Verifier.Handler].
// It is shared by all callers and must not be changed.
func FromContext(ctx context.Context) (*Delivery, bool) {
	d, ok := ctx.Value(contextKey{}).(*Delivery)
	return d, ok
}

// parseDelivery reads a signed body. The platform's own client finds the members at
// the top level. parseDelivery also reads them from "data", where the platform puts
// the content of its responses.
func parseDelivery(body []byte, h http.Header) (*Delivery, bool) {
	var o wire.Object
	if json.Unmarshal(body, &o) != nil || o == nil {
		return nil, false
	}
	if _, top := o["task_id"]; !top {
		if inner := o.Object("data"); inner["task_id"] != nil {
			o = inner
		}
	}
	d := &Delivery{
		Event:           h.Get(headerEvent),
		TaskID:          o.String("task_id"),
		Status:          o.String("status"),
		ErrorReason:     o.String("error_reason"),
		ProgressMessage: o.String("progress_message"),
		Created:         o.Time("created_at"),
		Completed:       o.Time("completed_at"),
		Body:            body,
	}
	d.TaskIDSigned = d.TaskID != ""
	if !d.TaskIDSigned {
		d.TaskID = h.Get(headerTaskID)
	}
	if out := o["output"]; !wire.IsNull(out) {
		d.Output = out
	}
	if json.Unmarshal(o["progress_percent"], &d.ProgressPercent) != nil {
		d.ProgressPercent = nil
	}
	return d, true
}
