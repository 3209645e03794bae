from plmray.cli import main

main()
