def write_report(*a):
    print(a[0].keys())
