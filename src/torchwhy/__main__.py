from torchwhy.cli import main; import sys; sys.exit(main())
