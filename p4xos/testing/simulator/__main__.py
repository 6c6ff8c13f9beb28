"""The same as `python -m p4xos.testing.simulate`."""

from p4xos.testing.simulate import main

raise SystemExit(main())
