package bench

import (
	"net/http"
	"runtime"
	"runtime/debug"
	"testing"
	"time"

	"github.com/agrenting/agrenting-go/bench/internal/peer"
	"github.com/agrenting/agrenting-go/bench/internal/stampede"
)

// cost counts what one run of f allocates, exactly: one processor, no collector
// that would empty the pools of net/http and of the base.
func cost(t *testing.T, f func() error) (allocs, bytes uint64) {
	t.Helper()
	const runs = 50
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	defer debug.SetGCPercent(debug.SetGCPercent(-1))
	var before, after runtime.MemStats
	for range 3 {
		if err := f(); err != nil {
			t.Fatal(err)
		}
	}
	runtime.ReadMemStats(&before)
	for range runs {
		if err := f(); err != nil {
			t.Fatal(err)
		}
	}
	runtime.ReadMemStats(&after)
	return (after.Mallocs - before.Mallocs) / runs, (after.TotalAlloc - before.TotalAlloc) / runs
}

func transportCost(t *testing.T, b peer.Builder, size int) (allocs, bytes uint64) {
	t.Helper()
	rt := build(t, b).Transport
	r := newRequest(t, payload(size))
	return cost(t, func() error { return r.send(rt) })
}

func callCost(t *testing.T, b peer.Builder, data []byte) (allocs, bytes uint64) {
	t.Helper()
	p, header := build(t, b), sixHeaders()
	return cost(t, func() error { return call(p, header, data) })
}

var oursAsTransport = []peer.Builder{
	{Name: "static key", Build: peer.OursStatic},
	{Name: "live credential", Build: peer.OursLive},
	{Name: "session", Build: peer.OursSession},
}

// What authentication adds to a request is what the contract of RoundTripper
// demands, and not one allocation more.
func TestTransportAllocatesAsTheFloor(t *testing.T) { //nolint:paralleltest // counts allocations
	bare, _ := transportCost(t, peer.Builder{Name: "bare", Build: peer.Bare}, 0)
	floor, floorBytes := transportCost(t, peer.Builder{Name: "floor", Build: peer.Least}, 0)
	if floor != bare+3 {
		t.Errorf("the floor allocates %d times, the bare base %d times, want 3 more", floor, bare)
	}
	checked := peer.Builder{Name: "floor, headers checked", Build: peer.LeastChecked}
	for _, b := range append([]peer.Builder{checked}, oursAsTransport...) {
		allocs, bytes := transportCost(t, b, 0)
		if allocs != floor || bytes > floorBytes {
			t.Errorf("%s: %d allocations, %d bytes; the floor makes %d, %d", b.Name, allocs, bytes, floor, floorBytes)
		}
	}
}

func TestCheckedFloorKeepsCallersCredential(t *testing.T) {
	t.Parallel()
	for name, callers := range map[string]bool{
		"Authorization": true, "authorization": true, "X-Api-Key": true, "X-API-Key": true, "x_api_key": true, "API-KEY": true,
		"X-Request-Id": false, "Accept": false, "X-Api-Kez": false, "Content-Types": false,
	} {
		base := &recording{}
		p, err := peer.LeastChecked(peer.Config{Base: base, Exchange: peer.Fixed})
		if err != nil {
			t.Fatal(err)
		}
		r := newRequest(t, nil)
		r.Header = http.Header{name: {"callers-own"}}
		if err := r.send(p.Transport); err != nil {
			t.Fatal(err)
		}
		if added := len(base.header) == 2; added == callers {
			t.Errorf("%s: a credential was added: %t", name, added)
		}
	}
}

// recording is a base that keeps the headers of the last request.
type recording struct {
	peer.Stub

	header http.Header
}

func (r *recording) RoundTrip(req *http.Request) (*http.Response, error) {
	r.header = req.Header
	return r.Stub.RoundTrip(req)
}

// The length of a body costs nothing.
func TestBodiesAreNotBuffered(t *testing.T) { //nolint:paralleltest // counts allocations
	for _, b := range oursAsTransport {
		small, smallBytes := transportCost(t, b, 1<<10)
		large, largeBytes := transportCost(t, b, 16<<20)
		if large != small || largeBytes != smallBytes {
			t.Errorf("%s: 16 MiB cost %d allocations, %d bytes; 1 KiB costs %d, %d", b.Name, large, largeBytes, small, smallBytes)
		}
	}
}

// The whole chain, everything on, allocates what an http.Client over the floor
// does.
func TestCallAllocatesAsMuchAsBaseline(t *testing.T) { //nolint:paralleltest // counts allocations
	for _, p := range payloads {
		data := payload(p.size)
		floor, _ := callCost(t, peer.Builder{Name: "floor", Build: peer.Least}, data)
		allocs, _ := callCost(t, peer.Builder{Name: "everything on", Build: peer.OursAll}, data)
		if allocs != floor {
			t.Errorf("%s: %d allocations, the floor makes %d", p.name, allocs, floor)
		}
	}
}

func TestCredentialReadDoesNotAllocate(t *testing.T) { //nolint:paralleltest // counts allocations
	read := build(t, peer.Builder{Name: "ours", Build: peer.OursClient}).Read
	if allocs, _ := cost(t, func() error { return read(t.Context()) }); allocs != 0 {
		t.Errorf("%d allocations", allocs)
	}
}

// All peers must work, or they are compared for nothing.
func TestPeersWork(t *testing.T) {
	t.Parallel()
	for _, b := range transports() {
		if err := newRequest(t, payload(1<<10)).send(build(t, b).Transport); err != nil {
			t.Errorf("%s: %v", b.Name, err)
		}
	}
	for _, b := range calls() {
		if err := call(build(t, b), sixHeaders(), payload(1<<10)); err != nil {
			t.Errorf("%s: %v", b.Name, err)
		}
	}
	for _, b := range readers() {
		if err := build(t, b).Read(t.Context()); err != nil {
			t.Errorf("%s: %v", b.Name, err)
		}
	}
}

// Each expiry and the revocation cause one exchange, and no caller gets a 401.
func TestStampede(t *testing.T) { //nolint:paralleltest // loads the machine
	if testing.Short() {
		t.Skip("takes twenty seconds")
	}
	r, err := stampede.Run(t.Context(), stampede.Options{
		Workers: 64, Segment: 1500 * time.Millisecond, Rounds: 1, OnlyOurs: true,
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range r.Checks() {
		if !c.Pass {
			t.Errorf("%s: %s, want %s", c.Name, c.Got, c.Want)
		}
	}
	t.Log("\n" + r.Text())
}
