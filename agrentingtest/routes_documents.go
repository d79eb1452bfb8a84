package agrentingtest

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"mime"
	"net/http"
	"time"
)

// document is a file: an upload of a client, or an artifact of a hiring. It is immutable.
type document struct {
	id          string
	name        string
	contentType string
	kind        string // document_type or artifact_type
	language    string
	content     []byte
	owner       party
	job         *job // nil if the document does not belong to a task
	created     time.Time
}

// addDocument needs the lock.
func (d *directory) addDocument(doc document) *document {
	doc.id = newUUID()
	if _, _, err := mime.ParseMediaType(doc.contentType); err != nil {
		doc.contentType = "text/plain"
	}
	d.documents.add(doc.id, &doc)
	return &doc
}

// artifact reports whether a document is an artifact of a hiring.
func (doc *document) artifact() bool { return doc.job != nil && doc.job.flow == hiringFlow }

// visible reports whether the actor may read the document.
func (doc *document) visible(w *actor) bool {
	return doc.owner.is(w) || doc.job != nil && doc.job.concerns(w)
}

// createDocument stores a file. The official clients send the same body to two routes.
func (s *Server) createDocument(x *exchange) (reply, *failure) {
	body, f := decodeObject(x.body)
	if f != nil {
		return reply{}, f
	}
	v := validator{fields: body}
	doc := document{
		name: v.text("name", true, 255), contentType: v.text("content_type", false, 255),
		kind: v.text("document_type", false, 50), owner: x.who.party(), created: s.now(),
	}
	taskID := v.text("task_id", false, 100)
	content := v.text("content", true, maxPlatformBody)
	var err error
	if doc.content, err = base64.StdEncoding.DecodeString(content); err != nil {
		v.complain("content", "must be base64")
	}
	if f := v.failure(); f != nil {
		return reply{}, f
	}
	if doc.kind == "" {
		doc.kind = "instructions"
	}
	if taskID != "" {
		doc.job = s.dir.jobs.get(taskID)
		if doc.job == nil || doc.job.flow != taskFlow || !doc.job.concerns(&x.who) {
			return reply{}, notFound("task")
		}
	}
	added := s.dir.addDocument(doc)
	return reply{status: http.StatusCreated, data: added.render(x.origin())}, nil
}

// render includes an absolute URL, so that clients must decide whether to send their
// credential to it.
func (doc *document) render(origin string) map[string]any {
	sum := sha256.Sum256(doc.content)
	m := map[string]any{
		"id": doc.id, "name": doc.name, "file_url": origin + "/api/v1/documents/" + doc.id + "/download",
		"content_type": doc.contentType, "file_hash": hex.EncodeToString(sum[:]), "document_type": doc.kind,
		"agent_id": doc.owner.agentID(), "task_id": nil,
		"inserted_at": timestamp(doc.created), "updated_at": timestamp(doc.created),
	}
	if doc.job != nil {
		m["task_id"] = doc.job.id
	}
	return m
}

// renderArtifact renders the members that live clients read. That download_url exists is
// an assumption. Live clients build the same URL from the ID.
func (doc *document) renderArtifact(origin string) map[string]any {
	m := map[string]any{
		"id": doc.id, "name": doc.name, "artifact_type": doc.kind, "content_type": doc.contentType,
		"size_bytes": len(doc.content), "download_url": origin + "/api/v1/artifacts/" + doc.id + "/download",
		"language": nil, "created_at": timestamp(doc.created),
	}
	if doc.language != "" {
		m["language"] = doc.language
	}
	return m
}

// download returns the content of a document or of an artifact.
func (s *Server) download(artifact bool) func(*exchange) (reply, *failure) {
	return s.working(func(x *exchange) (reply, *failure) {
		doc := s.dir.documents.get(x.r.PathValue("id"))
		switch {
		case doc != nil && doc.artifact() == artifact && doc.visible(&x.who):
			return reply{status: http.StatusOK, file: doc}, nil
		case artifact:
			return reply{}, notFound("artifact")
		default:
			return reply{}, notFound("document")
		}
	})
}

// origin returns the scheme and host of the request URL.
func (x *exchange) origin() string {
	if x.r.TLS != nil {
		return "https://" + x.r.Host
	}
	return "http://" + x.r.Host
}
