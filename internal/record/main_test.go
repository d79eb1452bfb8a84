package record_test

import (
	"os"
	"testing"

	"github.com/agrenting/agrenting-go/internal/sdktest"
)

func TestMain(m *testing.M) { os.Exit(sdktest.Main(m)) }
